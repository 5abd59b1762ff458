"""Write rows as a shard, parquet that `datasets` streams or a tar of WebDataset: `shard_bytes`."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from factory.outputs.training_formats import tar_bytes

Row = dict[str, Any]
GROUP_BYTES = 32 << 20
"""Of a row group: what a reader of a stream holds at a time."""
SUFFIX = {"parquet": "parquet", "webdataset": "tar"}


def weight_of(row: Row) -> int:
    """Bytes of a row, nearly."""
    return sum(_weight(value) for value in row.values())


def _weight(value: Any) -> int:
    if isinstance(value, bytes | str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_weight, value.values()))
    return sum(map(_weight, value)) if isinstance(value, list) else 8


def shard_bytes(rows: Sequence[Row], schema: pa.Schema, container: str, notes: Mapping[str, Any]) -> bytes:
    """One shard with all rows; `notes` go into the metadata of parquet, as `im3d`."""
    if container == "webdataset":
        return tar_bytes({name: data for row in rows for name, data in _sample(row).items()})
    schema = schema.with_metadata({**(schema.metadata or {}), b"im3d": json.dumps(notes).encode()})
    table = pa.Table.from_pylist(list(rows), schema=schema)
    light = [name for name, kind in zip(schema.names, schema.types) if pa.types.is_string(kind)]
    stream = io.BytesIO()
    group = max(1, GROUP_BYTES * len(rows) // max(1, sum(map(weight_of, rows))))
    pq.write_table(  # pictures and Gaussians hardly shrink
        table,
        stream,
        row_group_size=group,
        use_dictionary=light,  # pyright: ignore[reportArgumentType]
        compression="none",
        write_page_checksum=True,
    )
    return stream.getvalue()


def _sample(row: Row) -> dict[str, bytes]:
    """`<key>.<field>`: key is the asset's id with dots as %2E, since a dot ends a key."""
    key, files, about = row["asset_id"].replace(".", "%2E"), {}, {}
    for name, value in row.items():
        if isinstance(value, bytes):
            files[f"{name}.mp4" if name == "turntable" else name] = value
        elif name == "image":
            files["image.png"] = value["bytes"]
        elif name == "views":
            files |= {f"{k:03d}.view.png": view["bytes"] for k, view in enumerate(value)}
        else:
            about[name] = value
    return {f"{key}.{name}": data for name, data in {"json": json.dumps(about).encode(), **files}.items()}
