"""Pictures of users are upright, of the right values, bounded, and never uniform."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from recon.pictures import MAX_BYTES, decoded, on_grey, open_picture, suffix_of


def drawing(mode: str = "RGB") -> Image.Image:
    """A red disc left of the middle on white, 24 x 16."""
    picture = Image.new("RGB", (24, 16), "white")
    ImageDraw.Draw(picture).ellipse((2, 4, 9, 11), fill=(200, 30, 30))
    return picture.convert(mode)


def encoded(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


REFERENCE = np.asarray(drawing("RGBA"))
TURNS = {  # how the stored pixels are made of the upright ones, by the EXIF specification
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_orientation_of_exif_is_applied(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(TURNS[orientation](REFERENCE))).convert("RGB")
    data = encoded(stored, kind, exif=exif.tobytes(), **({"lossless": True} if kind == "WEBP" else {}))
    np.testing.assert_array_equal(open_picture(data), REFERENCE)


def test_textures_are_read_as_they_are_stored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    data = encoded(drawing(), exif=exif.tobytes())
    np.testing.assert_array_equal(np.asarray(decoded(data, 1 << 20, "texture", upright=False)), REFERENCE)


def test_opaque_alpha_and_unused_transparency_are_opaque() -> None:
    palette = drawing().quantize(8)
    for data in (
        encoded(drawing("RGBA")),
        encoded(palette, transparency=7),  # an entry that no pixel has
        encoded(palette, transparency=bytes([255] * 8)),
        encoded(drawing("L").convert("LA")),
    ):
        assert (open_picture(data)[..., 3] == 255).all()
    clear = open_picture(encoded(palette, transparency=palette.getpixel((0, 0))))
    assert (clear[0, 0, 3], clear[8, 5, 3]) == (0, 255)


def test_16_bit_grey_has_the_values_of_8_bit_grey() -> None:
    grey = np.asarray(drawing("L"))
    data = encoded(Image.fromarray(grey.astype(np.uint16) * 257))
    assert Image.open(io.BytesIO(data)).mode.startswith("I")
    np.testing.assert_array_equal(open_picture(data), open_picture(encoded(drawing("L"))))


@pytest.mark.parametrize("colour", [(255, 255, 255), (0, 0, 0), (12, 200, 99)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_uniform_pictures_are_refused_whatever_their_colour(colour: tuple[int, int, int], kind: str) -> None:
    with pytest.raises(ValueError, match="one colour all over"):
        open_picture(encoded(Image.new("RGB", (32, 24), colour), kind))


@pytest.mark.parametrize(
    ("colour", "message"), [((9, 9, 9, 0), "transparent all over"), ((9, 200, 9, 128), "one colour all over")]
)
def test_pictures_of_one_opacity_show_nothing_either(colour: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_picture(encoded(Image.new("RGBA", (32, 24), colour)))


def stored(bits: int, kind: int, rows: np.ndarray, clear: bytes) -> bytes:
    """A PNG of 8 packed rows, 8 pixels wide, with a transparent colour."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, bits, kind, 0, 0, 0)) + chunk(b"tRNS", clear)
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("bits", "row", "clear", "grey"),
    [(1, [0x0F], 1, 0), (2, [0x55, 0xFF], 3, 85), (4, [0x33, 0x33, 0xFF, 0xFF], 15, 51)],
)
def test_the_transparent_grey_of_few_bits(bits: int, row: list[int], clear: int, grey: int) -> None:
    pixels = open_picture(stored(bits, 0, np.tile(np.array(row, np.uint8), (8, 1)), struct.pack(">H", clear)))
    assert pixels[0, 0].tolist() == [grey, grey, grey, 255]
    assert pixels[0, 7, 3] == 0


@pytest.mark.parametrize(("clear", "alpha"), [(0xFF00, 0), (0x00FF, 255)])
def test_the_transparent_colour_of_16_bits(clear: int, alpha: int) -> None:
    row = np.array([[0x4000] * 3] * 4 + [[0xFF00] * 3] * 4, ">u2")
    pixels = open_picture(stored(16, 2, np.tile(row, (8, 1, 1)), struct.pack(">HHH", clear, clear, clear)))
    assert pixels[0, 0].tolist() == [64, 64, 64, 255]
    assert pixels[0, 7].tolist() == [255, 255, 255, alpha]


def test_a_black_outline_on_nothing_is_a_picture() -> None:
    cut_out = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    cut_out.paste((0, 0, 0, 255), (4, 4, 12, 12))
    assert open_picture(encoded(cut_out))[8, 8].tolist() == [0, 0, 0, 255]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (encoded(Image.new("1", (6000, 6000))), "6000x6000 pixels; the limit is 33554432: shrink it"),
        (b"\x89PNG" + bytes(MAX_BYTES), f"has {MAX_BYTES + 4} bytes; the limit is {MAX_BYTES}"),
        (encoded(drawing(), "EPS"), "unreadable image: broken, or no picture. Available formats: PNG, JPEG, WEBP"),
        (encoded(drawing(), "TIFF"), "Available formats: PNG, JPEG, WEBP"),
        (encoded(drawing(), "JPEG")[:300], "unreadable image"),
    ],
    ids=["pixels", "bytes", "eps", "tiff", "cut off"],
)
def test_limits_and_formats(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_picture(data)


def test_straight_alpha_over_grey() -> None:
    pixels = np.array([[[200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 51]]], np.uint8)
    assert on_grey(pixels, 0.5).tolist() == [[[200, 100, 0], [128, 128, 128], [142, 122, 102]]]


@pytest.mark.parametrize(("kind", "suffix"), [("PNG", "png"), ("JPEG", "jpg"), ("WEBP", "webp")])
def test_suffix(kind: str, suffix: str) -> None:
    assert suffix_of(encoded(drawing(), kind)) == suffix
    with pytest.raises(ValueError, match="unreadable image"):
        suffix_of(encoded(drawing(), "GIF"))
