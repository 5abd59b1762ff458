"""Open pictures that users bring, one way for every job: `open_picture`, bounded in bytes, pixels and formats."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_BYTES = 32 << 20
MAX_PIXELS = 32 << 20
MIN_SIDE = 8
MIN_CONTRAST = 4
"""Of 255: a picture whose channels all vary by less shows nothing."""
_GREY16 = ("I", "I;16", "I;16B", "I;16L")
_FEW_BITS = {"L;2": 85, "L;4": 17}
"""How Pillow spreads grey of few bits over a byte, by the layout of a PNG."""
_SUFFIXES = {"PNG": "png", "JPEG": "jpg", "MPO": "jpg", "WEBP": "webp"}


class PictureSizeError(ValueError):
    """A picture that is whole, and of a size that is not allowed."""


def open_picture(data: bytes) -> NDArray[np.uint8]:
    """Decode a picture of a user.

    Args:
        data: an encoded PNG, JPEG or WebP of up to 32 MiB and 32 million pixels, counted before they are decoded, with
            sides of at least 8 pixels.

    Returns:
        uint8 [H,W,4], upright as its EXIF orientation says; A is 255 everywhere where nothing is transparent. 16-bit
        grey is scaled to 8 bits.

    Raises:
        PictureSizeError: when it passes a limit.
        ValueError: for another format, broken data, or a picture that is transparent or of one colour all over.
    """
    if len(data) > MAX_BYTES:
        raise PictureSizeError(f"image has {len(data)} bytes; the limit is {MAX_BYTES}: shrink it")
    try:
        pixels = np.asarray(decoded(data, MAX_PIXELS, "image", upright=True))
    except PictureSizeError as error:
        raise PictureSizeError(f"{error}: shrink it") from error
    if min(height := pixels.shape[0], width := pixels.shape[1]) < MIN_SIDE:
        raise PictureSizeError(f"image is {width}x{height}; both sides must be at least {MIN_SIDE} pixels")
    if int(pixels[..., 3].max()) < MIN_CONTRAST:
        raise ValueError("image is transparent all over; give a picture of one object on a plain or transparent "
                         "background")  # fmt: skip
    if is_uniform(pixels):
        raise ValueError(f"image shows one colour all over, {tuple(pixels[0, 0, :3].tolist())}; give a picture of one "
                         "object on a plain or transparent background")  # fmt: skip
    return pixels


def is_uniform(pixels: NDArray[np.uint8]) -> bool:
    """Whether a picture [H,W,4] has one colour and one opacity all over."""
    flat = pixels.reshape(-1, 4)
    return bool((flat.max(0).astype(int) - flat.min(0) < MIN_CONTRAST).all())


def on_grey(pixels: NDArray[np.uint8], background: float) -> NDArray[np.uint8]:
    """A picture of straight alpha [H,W,4] as [H,W,3] over a grey in [0, 1]."""
    alpha = pixels[..., 3:].astype(np.float32) / 255
    return (pixels[..., :3] * alpha + 255 * background * (1 - alpha)).round().astype(np.uint8)


def suffix_of(data: bytes) -> str:
    """ "png", "jpg" or "webp", what an encoded picture is; raises ValueError for any other."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return _SUFFIXES[str(image.format)]
    except Exception as error:
        raise _unreadable("image", error) from error


def decoded(data: bytes, max_pixels: int, name: str, upright: bool) -> Any:
    """An encoded picture as an RGBA image of Pillow; 16-bit grey keeps its upper 8 bits.

    Args:
        max_pixels: most width times height. name: of the picture, in errors.
        upright: turn and mirror it as its EXIF orientation says; textures of meshes are read as they are stored.

    Raises:
        PictureSizeError: for more pixels. ValueError: for another format, or broken data.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise PictureSizeError(f"{name} has {width}x{height} pixels; the limit is {max_pixels}")
            rgba = _rgba(image)
            if upright and (orientation := image.getexif().get(0x0112, 1)) != 1:
                rgba.getexif()[0x0112] = orientation
                rgba = ImageOps.exif_transpose(rgba)
            return rgba
    except PictureSizeError:
        raise
    except Exception as error:  # decoders meet broken data with whatever comes: AssertionError, struct.error, ...
        raise _unreadable(name, error) from error


def _unreadable(name: str, error: Exception) -> ValueError:
    from PIL import UnidentifiedImageError

    unknown = isinstance(error, UnidentifiedImageError)
    reason = "broken, or no picture" if unknown else str(error)[:120] or type(error).__name__
    return ValueError(f"unreadable {name}: {reason}. Available formats: {', '.join(FORMATS)}")


def _rgba(image: Any) -> Any:
    from PIL import Image

    if image.mode not in _GREY16:
        _scale_transparency(image)
        return image.convert("RGBA")
    grey = np.asarray(image).astype(np.int64).clip(0, 65535)
    clear = grey == image.info.get("transparency", -1)
    planes = [np.rint(grey / 257)] * 3 + [np.where(clear, 0, 255)]
    return Image.fromarray(np.stack(planes, -1).astype(np.uint8), "RGBA")


def _scale_transparency(image: Any) -> None:
    """Bring the transparent colour of a PNG to the 8 bits that Pillow decodes its pixels to; it leaves it as stored."""
    clear, stored = image.info.get("transparency"), image.tile[0].args if image.tile else None
    if isinstance(clear, int) and stored in _FEW_BITS:
        image.info["transparency"] = clear * _FEW_BITS[stored]
    elif isinstance(clear, tuple) and stored == "RGB;16B":
        image.info["transparency"] = tuple(channel >> 8 for channel in clear)
