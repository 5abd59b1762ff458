"""Assets that benchmarks read: a folder with `assets.jsonl` and the files that its rows name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SUBPIXELS = 4
"""Sides of a pixel are cut so often before the renderer's own supersampling, so that a half-covered pixel is known as
such: with the renderer's 2 x 2 samples alone, the masks of thin things differ from the true ones by 4% IoU."""


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


def true_turntable(mesh, elevation: float, size: int, num_views: int = 16, start_azimuth: float = 0.0) -> np.ndarray:
    """`factory.meshes.render_turntable` with 64 samples a pixel: uint8 [num_views,size,size,4]."""
    from factory.meshes import render_turntable

    views = range(num_views)
    turns = [start_azimuth + view * 2 * np.pi / num_views for view in views]
    fine = [render_turntable(mesh, elevation, SUBPIXELS * size, 1, turn)[0] for turn in turns]
    shape = (size, SUBPIXELS, size, SUBPIXELS, 4)
    return np.stack([np.rint(view.reshape(shape).mean((1, 3))).astype(np.uint8) for view in fine])
