"""Describe the table of finished assets: `assets_schema`, and `asset_row` for one asset.

Angles are radians, times seconds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from factory.ledger.keys import digest
from factory.ledger.ledger import file_entry
from factory.ledger.schemas import ATTEMPT, FILE, IDENTITY, IMAGE
from factory.line.cost import row_cost
from factory.line.placement import Pool
from factory.line.rows import is_large
from factory.stages.view_plans import orbit_of

Row = dict[str, Any]

FILE_COLUMNS = {
    "ply": "asset.ply",
    "turntable": "turntable.mp4",
    "generated": "generated.mp4",
    "transforms": "transforms.json",
    "mesh": "mesh.glb",
}
"""The columns that refer to files, and their names; null where an asset has none."""


NETWORKS = pa.list_(pa.struct([("name", pa.string()), ("revision", pa.string()), ("license", pa.string())]))
"""A hub commit or sha256 of each network of a run, and what its card states."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MadeWith:
    """What the assets of a run have in common."""

    fingerprint: str = ""
    """Of the settings."""
    columns: Sequence[pa.Field] = ()
    """What the stages of the chain write into the table."""
    pools: Mapping[str, Pool] = field(default_factory=dict)
    """What the actors of each stage hold, which an asset pays for."""
    networks: Sequence[Row] = ()
    """Name, revision and licence of every network that the chain loads."""


def assets_schema(columns: Iterable[pa.Field], scores: Iterable[str] = ()) -> pa.Schema:
    """The schema of finished assets.

    Args:
        columns: what the stages of the chain write, see `factory.stages.chain.written_columns`; large ones and maps are
            left out.
        scores: columns of numbers, as those of a map; a score's name ends in that of the model that judged.
    """
    made = [column for column in columns if not is_large(column) and not pa.types.is_map(column.type)]
    fields = [
        *IDENTITY,
        ("size_metres", pa.float64()),
        ("image", IMAGE),
        *[(name, FILE) for name in FILE_COLUMNS],
        *made,
        *[(name, pa.float64()) for name in ("actor_seconds", "cpu_seconds", "gpu_seconds", "cost_dollars")],
        *[("num_views", pa.int32()), ("fov_degrees", pa.float64()), ("distance", pa.float64())],
        *[(name, pa.float64()) for name in scores],
        *[(name, pa.string()) for name in ("fingerprint", "config_fingerprint")],
        ("networks", NETWORKS),
        *ATTEMPT,
    ]
    features = {"info": {"features": {"image": {"_type": "Image"}}}}
    return pa.schema(fields, metadata={"huggingface": json.dumps(features)})


def identity_of(row: Row, made_with: MadeWith) -> str:
    """The fingerprint of an asset: of its prompt, picture and seed, the settings and the weights' revisions."""
    source = hashlib.sha256(row["source_image"] or b"").hexdigest()
    names = dict.fromkeys(column.name for column in made_with.columns if column.name.endswith("_revision"))
    revisions = [str(row.get(name)) for name in names]
    return digest(row["prompt_id"], row["prompt"], source, str(row["seed"]), made_with.fingerprint, *revisions)


def asset_row(
    row: Row, files: Mapping[str, bytes], folder: str, config: Any, made_with: MadeWith
) -> tuple[Row, pa.Schema]:
    """The table row of a finished row whose files lie in `folder`, and its schema; `config`: `orbit` and `cost`."""
    maps = [column.name for column in made_with.columns if pa.types.is_map(column.type)]
    numbers: dict[str, float] = {}
    for name in maps:
        numbers |= dict(row.get(name) or [])
    schema = assets_schema(made_with.columns, sorted(numbers))
    entries = {
        column: file_entry(f"{folder}/{name}", files[name]) if name in files else None
        for column, name in FILE_COLUMNS.items()
    }
    cameras = asdict(orbit_of(row, config.orbit))
    known = {name: row.get(name) for name in schema.names} | numbers | row_cost(row, made_with.pools, config.cost)
    identity = {"fingerprint": identity_of(row, made_with), "config_fingerprint": made_with.fingerprint}
    image = {"bytes": files["image.png"], "path": f"{folder}/image.png"}
    return known | entries | cameras | identity | {"image": image, "networks": list(made_with.networks)}, schema
