"""Pictures that users bring, read without trust: bounded in bytes and pixels, few formats, no addresses."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_PIXELS = 32 << 20
MIN_SIDE = 8


def read_picture(data: bytes, size: int | None = None) -> NDArray[np.uint8]:
    """Decode a picture to a square.

    Args:
        data: an encoded PNG, JPEG or WebP.
        size: side of the result in pixels; None keeps the longer side.

    Returns:
        uint8 [S,S,4] over white where the picture has transparency (A is coverage), else [S,S,3], padded with white.

    Raises:
        ValueError: for another format, broken data, sides under 8 or more than 32 million pixels.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise ValueError(
                    f"image has {picture.width}x{picture.height} pixels; the limit is {MAX_PIXELS}: shrink it"
                )
            if min(picture.size) < MIN_SIDE:
                raise ValueError(
                    f"image is {picture.width}x{picture.height}; both sides must be at least {MIN_SIDE} pixels"
                )
            transparent = picture.has_transparency_data
            rgba = picture.convert("RGBA")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"unreadable image: {error}. Available formats: {', '.join(FORMATS)}") from error
    side = max(rgba.size)
    square = Image.new("RGBA", (side, side), (255, 255, 255, 0 if transparent else 255))
    square.paste(rgba, ((side - rgba.width) // 2, (side - rgba.height) // 2))
    if size and size != side:
        square = square.resize((size, size), Image.Resampling.LANCZOS)
    pixels = np.asarray(square, np.float32)
    alpha = pixels[..., 3:]
    over_white = np.rint(pixels[..., :3] * alpha / 255 + (255 - alpha)).astype(np.uint8)
    return np.concatenate([over_white, alpha.astype(np.uint8)], -1) if transparent else over_white


def cut_out(picture: NDArray[np.uint8], coverage: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The object of an opaque picture [S,S,3] alone on white, by its coverage [S,S]: uint8 [S,S,4]."""
    alpha = coverage[..., None].astype(np.float32)
    over_white = np.rint(picture * (alpha / 255) + (255 - alpha)).astype(np.uint8)
    return np.concatenate([over_white, coverage[..., None]], -1)
