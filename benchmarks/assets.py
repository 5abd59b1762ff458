"""Read the assets of a benchmark, a folder with `assets.jsonl` and the files that it names: `load_assets`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(kw_only=True, slots=True)
class Asset:
    """One row: `path` to the GLB, and its caption."""

    asset_id: str
    path: Path
    caption: str


def load_assets(folder: Path, split: str | None = "val", limit: int | None = None) -> list[Asset]:
    """The assets of `split` (None: of all), at most `limit`.

    Raises:
        ValueError: if the folder has no table, or the table no such rows.
    """
    table = folder / "assets.jsonl"
    if not table.is_file():
        raise ValueError(f"{folder} has no assets.jsonl; give a folder with assets.jsonl and glb/")
    rows = [json.loads(line) for line in table.read_text().splitlines() if line.strip()]
    found = [
        Asset(asset_id=row["id"], path=folder / row["path"], caption=row["caption"])
        for row in rows
        if split is None or row.get("split") == split
    ]
    if not found:
        splits = sorted({str(row.get("split")) for row in rows})
        raise ValueError(f"no asset of split {split!r} in {table}. Available: {', '.join(splits)}")
    return found[:limit]
