"""Write contact sheets of pictures: `write_sheet`."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def write_sheet(path: Path, images: np.ndarray, columns: int = 11) -> None:
    """A contact sheet of pictures uint8 [B,S,S,C], in reading order, on white."""
    from PIL import Image

    blank = np.full((-len(images) % columns, *images.shape[1:]), 255, np.uint8)
    rows = np.concatenate([images, blank])[..., :3].reshape(-1, columns, *images.shape[1:3], 3)
    Image.fromarray(np.concatenate([np.concatenate(list(row), 1) for row in rows])).save(path, optimize=True)
