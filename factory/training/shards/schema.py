"""Name the columns of a shard of turntables: `RENDERS` is what `im3d render` writes, `foreign_column` checks it.

Angles are radians, times seconds, images PNG.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from factory.ledger.schemas import ERROR, IMAGE

RENDER_STAGE = "render"

ASSET_LINE = pa.schema(
    [
        pa.field("turntable_id", pa.string(), False),  # asset_id, a dot, the number of the turntable
        *[(name, pa.string()) for name in ("asset_id", "path", "caption", "license", "source", "split")],
        ("companion", pa.string()),  # path of the asset that stands beside
        ("assembled", pa.bool_()),  # whether the two are only parts of what is shown
        ("attempt", pa.int32()),
    ]
)

RENDERS = pa.schema(
    [
        *ASSET_LINE,
        ("frames", pa.list_(IMAGE)),  # V PNGs with straight alpha
        ("elevation", pa.float64()),
        ("azimuths", pa.list_(pa.float64())),
        *[("size", pa.int32()), ("fov_degrees", pa.float64()), ("distance", pa.float64())],
        ("viewmats", pa.list_(pa.list_(pa.float64(), 16))),  # world to camera, row by row
        ("seconds_render", pa.float64()),
        *[("host", pa.string()), ("run_id", pa.string())],
    ],
    metadata={"huggingface": json.dumps({"info": {"features": {"frames": [{"_type": "Image"}]}}})},
)

RENDER_DEAD_LETTERS = pa.schema([*ASSET_LINE, *ERROR, ("host", pa.string()), ("run_id", pa.string())])


def foreign_column(schema: Any, names: Sequence[str]) -> str | None:
    """Which of these columns of a pyarrow schema is missing or of another type; None where all are right.

    A column of nulls has no type and is right, for its rows are looked at one by one.
    """
    from pyarrow import types

    for name in names:
        if name not in schema.names:
            return f"no column {name!r}"
        kind = schema.field(name).type
        if name == "frames":
            right, wanted = _holds_images(kind), "a list of images as {bytes: binary}"
        elif name == "latents":
            right, wanted = types.is_binary(kind) or types.is_large_binary(kind), "binary"
        elif name in ("size", "elevation"):
            right, wanted = types.is_integer(kind) or types.is_floating(kind) or types.is_null(kind), "a number"
        else:
            right, wanted = _is_text(kind) or types.is_null(kind), "text"
        if not right:
            return f"column {name!r} is {kind}, not {wanted}"
    return None


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    plain = kind.value_type if types.is_dictionary(kind) else kind
    return types.is_string(plain) or types.is_large_string(plain) or types.is_string_view(plain)


def _holds_images(kind: Any) -> bool:
    from pyarrow import types

    if not (types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)):
        return False
    image = kind.value_type
    held = image.field("bytes").type if types.is_struct(image) and image.get_field_index("bytes") >= 0 else None
    return held is not None and (types.is_binary(held) or types.is_large_binary(held))


def frame_counts(file: Any, group: int) -> list[int]:
    """How many frames each turntable of a row group has, without reading them.

    A small column with a value a frame is counted: the frames' own paths, or the azimuths. A table that has neither
    tells only the mean, in its metadata.
    """
    import pyarrow.compute as pc

    about = file.metadata.row_group(group)
    leaves = {about.column(i).path_in_schema: about.column(i).num_values for i in range(about.num_columns)}
    frames = [path for path in leaves if path.startswith("frames.")]
    small = [path for path in frames if path.endswith(".path")] or [p for p in leaves if p.startswith("azimuths.")]
    if small:
        lengths = pc.list_value_length(file.read_row_group(group, small[:1]).column(0))  # pyright: ignore
        return [length or 0 for length in lengths.to_pylist()]
    return [leaves[frames[0]] // max(1, about.num_rows)] * about.num_rows


def compressed_bytes(group: Any) -> int:
    """Compressed bytes of a row group, by its metadata."""
    return sum(group.column(i).total_compressed_size for i in range(group.num_columns))
