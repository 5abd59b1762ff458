"""Make reference images of pictures that users bring: `read_picture`, `cut_out`, `frame_object`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recon.pictures import MAX_PIXELS, open_picture

MAX_SIDE = 2048
OBJECT_SHARE = 0.89
"""Radius of the circle about the object over half the image's side: the median of turntable renders."""


def read_picture(data: bytes, size: int | None = None) -> NDArray[np.uint8]:
    """Decode a picture to a square.

    Args:
        data: an encoded PNG, JPEG or WebP.
        size: side of the result in pixels; None keeps the longer side, up to 2,048.

    Returns:
        uint8 [S,S,4] over white where something of the picture is transparent (A is coverage), else [S,S,3], padded
        with white.

    Raises:
        ValueError: as `open_picture`.
    """
    from PIL import Image

    pixels = open_picture(data)
    rgba, transparent = Image.fromarray(pixels, "RGBA"), bool(pixels[..., 3].min() < 255)
    side = max(rgba.size)
    wanted = size or min(side, MAX_SIDE)
    if side * side > MAX_PIXELS:  # a strip: its square would not fit, so it is shrunk before it is padded
        rgba = rgba.resize([max(1, round(length * wanted / side)) for length in rgba.size], Image.Resampling.LANCZOS)
        side = max(rgba.size)
    square = Image.new("RGBA", (side, side), (255, 255, 255, 0 if transparent else 255))
    square.paste(rgba, ((side - rgba.width) // 2, (side - rgba.height) // 2))
    if wanted != side:
        square = square.resize((wanted, wanted), Image.Resampling.LANCZOS)
    pixels = np.asarray(square, np.float32)
    alpha = pixels[..., 3:]
    over_white = np.rint(pixels[..., :3] * alpha / 255 + (255 - alpha)).astype(np.uint8)
    return np.concatenate([over_white, alpha.astype(np.uint8)], -1) if transparent else over_white


def cut_out(picture: NDArray[np.uint8], coverage: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The object of an opaque picture [S,S,3] alone on white, by its coverage [S,S]: uint8 [S,S,4]."""
    from recon.over_white import over_white

    return np.concatenate([over_white(picture, coverage), coverage[..., None]], -1)


def frame_object(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Centre the object and scale it to fill the image as it does in turntable renders.

    Args:
        picture: uint8 [S,S,4] over white, and coverage.
        size: side of the result in pixels.

    Returns:
        uint8 [size,size,4].

    Raises:
        ValueError: when nothing is covered.
    """
    from PIL import Image

    rows, columns = np.nonzero(picture[..., 3] > 127)
    if not len(rows):
        raise ValueError("image shows no object; give a picture of one object on a plain or transparent background")
    centre = (np.array([columns.min() + columns.max(), rows.min() + rows.max()]) + 1) / 2
    radius = np.hypot(columns + 0.5 - centre[0], rows + 0.5 - centre[1]).max()
    half = max(radius, 0.5) / OBJECT_SHARE
    pad = int(np.ceil(half)) + 1
    around = (pad, pad), (pad, pad)
    padded = np.pad(picture[..., :3], (*around, (0, 0)), constant_values=255), np.pad(picture[..., 3], around)
    left, top = centre - half + pad
    box = (left, top, left + 2 * half, top + 2 * half)
    rgb, alpha = (
        np.asarray(Image.fromarray(part).resize((size, size), Image.Resampling.LANCZOS, box=box)) for part in padded
    )
    return np.concatenate([rgb, alpha[..., None]], -1)
