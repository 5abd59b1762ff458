"""Every table's Arrow schema, once. Angles are radians, times seconds, images uint8.

`LINE` is what travels between the stages; arrays in it are .npy bytes (see `pack`). `ASSETS` and
`DEAD_LETTERS` are what is published as parquet.
"""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

RENDER_STAGE = "render"
STAGES = ("image", "video", "views", "reconstruct", "score", "commit")
"""The stages in order; `views` finds masks and elevation."""

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
FILE = pa.struct([("path", pa.string()), ("sha256", pa.string()), ("size", pa.int64())])
_LOSS = pa.struct([("step", pa.int32()), ("name", pa.string()), ("value", pa.float64())])

_IDENTITY = [pa.field("prompt_id", pa.string(), False), pa.field("prompt", pa.string(), False), ("seed", pa.int64())]
ERROR = [(f"error_{what}", pa.string()) for what in ("stage", "type", "message", "trace")]
"""Of every dead letter; the trace is the end of it, empty where no Python code raised. Older tables have no traces."""
_ATTEMPT = [("attempt", pa.int32()), ("host", pa.string()), ("run_id", pa.string())]

_MADE = [
    ("from_image", pa.bool_()),  # the row brought its own image
    ("elevation", pa.float64()),
    *[(f"seconds_{stage}", pa.float64()) for stage in STAGES[:-1]],
    ("device", pa.string()),  # of the reconstruction
    *[(f"{kind}_{stage}", pa.int32()) for stage in ("image", "video", "refine") for kind in ("steps", "forwards")],
    *[(f"{model}_{what}", pa.string()) for model in ("image", "video") for what in ("revision", "license")],
    ("yield_score", pa.float64()),  # probability that the turntable makes no usable asset, where it was judged
    ("yield_reasons", pa.list_(pa.string())),
    ("num_gaussians", pa.int32()),
    ("losses", pa.list_(_LOSS)),  # at the end of each part of the fit
]

LINE = pa.schema(
    [
        *_IDENTITY,
        ("source_image", pa.large_binary()),  # encoded, as the user gave it
        ("image", pa.large_binary()),  # [H,W,3|4]
        ("frames", pa.large_binary()),  # [V,H,W,3|4]
        ("masks", pa.large_binary()),  # [V,H,W]
        ("gaussians", pa.large_binary()),  # PLY
        ("mesh", pa.large_binary()),  # GLB, where one is wanted
        ("renders", pa.large_binary()),  # [T,H,W,4], one turn; A is coverage
        *_MADE,
        ("scores", pa.map_(pa.string(), pa.float64())),
        *ERROR,
        *_ATTEMPT,
    ]
)

OUTCOME = pa.schema([("prompt_id", pa.string()), ("status", pa.string())])

DEAD_LETTERS = pa.schema([*_IDENTITY, *ERROR, *_ATTEMPT, ("fingerprint", pa.string())])


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

GROUP_LINE = pa.schema(
    [
        pa.field("group_id", pa.string(), False),  # shard, row group, which writing of the file
        *[("key", pa.string()), ("group", pa.int32()), ("rows", pa.list_(pa.int32()))],
        ("attempt", pa.int32()),
    ]
)
_READ = [
    pa.field("group_id", pa.string(), False),
    ("problems", pa.map_(pa.string(), pa.string())),  # turntables that cannot be read, and why
    *[("host", pa.string()), ("run_id", pa.string())],
]
_VERDICT = pa.struct(
    [
        *[(name, pa.string()) for name in ("asset_id", "split")],
        *[("total", pa.float64()), ("num_views", pa.int32())],  # sum of the views' scores
    ]
)
VERDICTS = pa.schema([*_READ, ("verdicts", pa.list_(_VERDICT)), ("pictures", pa.map_(pa.string(), pa.binary()))])
"""Row groups judged: their assets, and a PNG of the first view of each."""
CAPTIONS = pa.schema([*_READ, ("captions", pa.map_(pa.string(), pa.string()))])
ENCODED = pa.schema([*_READ, ("path", pa.string()), ("turntables", pa.int32()), ("seconds_encode", pa.float64())])
GROUP_DEAD_LETTERS = pa.schema([*GROUP_LINE, *ERROR, ("host", pa.string()), ("run_id", pa.string())])


def assets_schema(score_columns: list[str]) -> pa.Schema:
    """The schema of finished assets; a score's column carries the name of the model that judged."""
    files = [(name, FILE) for name in ("ply", "turntable", "generated", "transforms", "mesh")]
    cost = [(name, pa.float64()) for name in ("actor_seconds", "cpu_seconds", "gpu_seconds", "cost_dollars")]
    cameras = [("num_views", pa.int32()), ("fov_degrees", pa.float64()), ("distance", pa.float64())]
    fields = [
        *_IDENTITY,
        ("image", IMAGE),
        *files,
        *_MADE,
        *cost,
        *cameras,
        *[(name, pa.float64()) for name in score_columns],
        *[(name, pa.string()) for name in ("fingerprint", "config_fingerprint")],
        *_ATTEMPT,
    ]
    features = {"info": {"features": {"image": {"_type": "Image"}}}}
    return pa.schema(fields, metadata={"huggingface": json.dumps(features)})


def chosen(row: dict[str, Any], schema: pa.Schema) -> dict[str, Any]:
    """A row's values of a schema's columns, null where it has none."""
    return {name: row.get(name) for name in schema.names}


def empty_row(**values: Any) -> dict[str, Any]:
    """A row of LINE: the given values, and null for the rest."""
    return dict.fromkeys(LINE.names) | values


def pack(array: NDArray) -> bytes:
    """An array as .npy bytes."""
    stream = io.BytesIO()
    np.save(stream, np.ascontiguousarray(array), allow_pickle=False)
    return stream.getvalue()


def unpack(data: bytes) -> NDArray:
    """The array of `pack`; raises ValueError on anything else."""
    return np.load(io.BytesIO(data), allow_pickle=False)
