"""Name the columns of the line of prompts and its dead letters: `LINE`, `DEAD_LETTERS`; `pack` makes bytes of arrays.

`LINE` is what enters the line of prompts; each stage appends the columns that it declares, arrays among them as .npy
bytes (see `pack`). `DEAD_LETTERS` is published as parquet, as are the assets (`factory.stages.asset_table`); the
shards of turntables have their own (`factory.training.shards.schema`). Angles are radians, times seconds, images uint8.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_HEADER_BYTES = 1024
"""Of .npy; headers of such arrays have 128."""

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
FILE = pa.struct([("path", pa.string()), ("sha256", pa.string()), ("size", pa.int64())])

IDENTITY = [pa.field("prompt_id", pa.string(), False), pa.field("prompt", pa.string(), False), ("seed", pa.int64())]
ERROR = [(f"error_{what}", pa.string()) for what in ("stage", "type", "message", "trace")]
"""Of every dead letter; the trace is the end of it, empty where no Python code raised. Older tables have no traces."""
ATTEMPT = [("attempt", pa.int32()), ("host", pa.string()), ("run_id", pa.string())]

LINE = pa.schema(
    [
        *IDENTITY,
        ("size_metres", pa.float64()),  # longest side of the object, where the user gave it
        ("source_image", pa.large_binary()),  # encoded, as the user gave it
        *ERROR,
        *ATTEMPT,
    ]
)

REJECTED = "Rejected"
"""The `error_type` of an asset that was made and found unusable."""
OUTCOME = pa.schema([("prompt_id", pa.string()), ("status", pa.string())])
"""Of a row: "done", "failed", or "rejected"."""

DEAD_LETTERS = pa.schema([*IDENTITY, *ERROR, *ATTEMPT, ("fingerprint", pa.string())])


def by_part(names: Iterable[str], kind: str) -> dict[str, str]:
    """The columns `<kind>_<part>` of a table by part, in order: of kind "seconds", what each stage took."""
    return {name.removeprefix(f"{kind}_"): name for name in names if name.startswith(f"{kind}_")}


def chosen(row: dict[str, Any], schema: pa.Schema) -> dict[str, Any]:
    """A row's values of a schema's columns, null where it has none."""
    return {name: row.get(name) for name in schema.names}


def empty_row(**values: Any) -> dict[str, Any]:
    """A row of LINE: the given values, and null for the rest."""
    return dict.fromkeys(LINE.names) | values


def pack(array: NDArray) -> bytes:
    """An array as .npy bytes."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)
    return stream.getvalue()


def unpack(data: bytes | memoryview) -> NDArray:
    """The array of `pack`, a copy of its own; raises ValueError on anything else."""
    return np.load(io.BytesIO(data), allow_pickle=False)


def shape_of(data: bytes | memoryview) -> tuple[int, ...]:
    """The shape of an array of `pack`, from its first bytes."""
    stream = io.BytesIO(data[:_HEADER_BYTES])
    np.lib.format.read_magic(stream)
    return np.lib.format.read_array_header_1_0(stream)[0]
