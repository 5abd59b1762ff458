"""Turntable shards, as `im3d render` writes them, into memory for training."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from model.pocket.data import TurntableSet

_COLUMNS = ["asset_id", "caption", "split", "frames", "elevation"]


def load_turntables(folder: Path, split: str | None = None) -> TurntableSet:
    """Every asset's turntables of `split` (None: all); an asset with fewer elevations repeats them.

    Memory: one 128 px turntable takes 1 MiB.

    Raises:
        ValueError: when the folder has no shards, no such rows, or turntables of different shapes.
    """
    import pyarrow.dataset as ds
    import torch

    from model.pocket.data import TurntableSet

    place = folder / "renders" if (folder / "renders").is_dir() else folder
    if not list(place.glob("*.parquet")):
        raise ValueError(f"{folder} holds no turntable shards (*.parquet); make some with `im3d render`")
    rows = ds.dataset(place, format="parquet").scanner(
        columns=_COLUMNS, filter=None if split is None else ds.field("split") == split, batch_size=16
    )
    found: dict[str, list[tuple[NDArray[np.uint8], float]]] = {}
    captions: dict[str, str] = {}
    for batch in rows.to_batches():
        for row in batch.to_pylist():
            frames = np.stack([over_white(frame["bytes"]) for frame in row["frames"]])
            found.setdefault(row["asset_id"], []).append((frames, row["elevation"]))
            captions[row["asset_id"]] = row["caption"] or ""
    if not found:
        raise ValueError(f"{folder} has no turntables of split {split!r}")
    shapes = {frames.shape for turntables in found.values() for frames, _ in turntables}
    if len(shapes) > 1:
        raise ValueError(f"{folder} mixes turntables of shapes {sorted(shapes)}; train on one at a time")
    most = max(len(turntables) for turntables in found.values())
    ids = sorted(found)
    padded = [[found[name][k % len(found[name])] for k in range(most)] for name in ids]
    return TurntableSet(
        frames=torch.from_numpy(np.stack([np.stack([frames for frames, _ in row]) for row in padded])),
        elevations=torch.tensor([[elevation for _, elevation in row] for row in padded]),
        captions=[captions[name] for name in ids],
        asset_ids=ids,
    )


def over_white(png: bytes) -> NDArray[np.uint8]:
    """A PNG with straight alpha as uint8 [H,W,4]: RGB over white, and coverage."""
    from PIL import Image

    rgba = np.asarray(Image.open(io.BytesIO(png)).convert("RGBA")).astype(np.float32)
    alpha = rgba[..., 3:] / 255
    rgb = rgba[..., :3] * alpha + 255 * (1 - alpha)
    return np.concatenate([np.rint(rgb).astype(np.uint8), rgba[..., 3:].astype(np.uint8)], -1)
