"""Pictures that users bring, read without trust: bounded in bytes and pixels, few formats, no addresses."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_PIXELS = 32 << 20
MIN_SIDE, MAX_SIDE = 8, 2048
OBJECT_SHARE = 0.89
"""Radius of the circle about the object over half the image's side: the median of turntable renders."""


def read_picture(data: bytes, size: int | None = None) -> NDArray[np.uint8]:
    """Decode a picture to a square.

    Args:
        data: an encoded PNG, JPEG or WebP.
        size: side of the result in pixels; None keeps the longer side, up to 2,048.

    Returns:
        uint8 [S,S,4] over white where the picture has transparency (A is coverage), else [S,S,3], padded with white.

    Raises:
        ValueError: for another format, broken data, sides under 8 or more than 32 million pixels.
    """
    from PIL import Image

    rgba, transparent = _decoded(data)
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


def _decoded(data: bytes) -> tuple[Any, bool]:
    """The picture as RGBA, and whether it has transparency; raises ValueError."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            _check_size(*picture.size)
            transparent = picture.has_transparency_data
            return picture.convert("RGBA"), transparent
    except _SizeError:
        raise
    except UnidentifiedImageError as error:
        raise ValueError(f"unreadable image: broken, or no picture. Available formats: {', '.join(FORMATS)}") from error
    except Exception as error:  # decoders meet broken data with whatever comes: AssertionError, struct.error, ...
        reason = str(error) or type(error).__name__
        raise ValueError(f"unreadable image: {reason}. Available formats: {', '.join(FORMATS)}") from error


class _SizeError(ValueError):
    """A picture that is whole, and of a size that is not allowed."""


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise _SizeError(f"image has {width}x{height} pixels; the limit is {MAX_PIXELS}: shrink it")
    if min(width, height) < MIN_SIDE:
        raise _SizeError(f"image is {width}x{height}; both sides must be at least {MIN_SIDE} pixels")


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
