"""Pictures from strangers."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from factory.prompts.pictures import OBJECT_SHARE, cut_out, frame_object, read_picture


def encoded(pixels: np.ndarray, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A valid PNG header of a huge picture, with a few bytes of data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def test_opaque_picture_is_centred_on_white() -> None:
    pixels = np.full((20, 40, 3), (10, 20, 30), np.uint8)
    pixels[5:15, 10:20] = 200
    square = read_picture(encoded(pixels))
    assert square.shape == (40, 40, 3)
    assert (square[10:30] == pixels).all()
    assert (square[:10] == 255).all()
    assert (square[30:] == 255).all()


def test_transparent_picture_keeps_coverage_and_lies_over_white() -> None:
    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[4:12, 4:12] = (200, 100, 50, 255)
    pixels[0, 0] = (0, 0, 0, 128)
    square = read_picture(encoded(pixels))
    assert square.shape == (16, 16, 4)
    assert tuple(square[8, 8]) == (200, 100, 50, 255)
    assert tuple(square[0, 15]) == (255, 255, 255, 0)
    assert tuple(square[0, 0]) == (127, 127, 127, 128)


def test_picture_is_resized() -> None:
    assert read_picture(encoded(np.eye(64, 32, dtype=np.uint8)[..., None].repeat(3, 2) * 255), 48).shape == (48, 48, 3)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_other_formats(kind: str) -> None:
    pixels = np.full((32, 32, 3), 90, np.uint8)
    pixels[8:24, 8:24] = 200
    square = read_picture(encoded(pixels, kind))
    assert np.abs(square.astype(int) - pixels).mean() <= 3


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "unreadable image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unreadable image: broken, or no picture"),
        (encoded(np.zeros((64, 64, 3), np.uint8))[:60], "unreadable image"),
        (bomb(50_000, 50_000), "50000x50000 pixels; the limit is|unreadable image"),
        (bomb(6_000, 6_000), "6000x6000 pixels; the limit is"),
        (encoded(np.zeros((4, 64, 3), np.uint8)), "at least 8 pixels"),
        (encoded(np.zeros((64, 64, 3), np.uint8), "GIF"), "Available formats: PNG, JPEG, WEBP"),
    ],
)
def test_unusable_pictures_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_picture(data)


def test_object_is_cut_out_onto_white() -> None:
    coverage = np.zeros((8, 8), np.uint8)
    coverage[2:6, 2:6] = 255
    coverage[0, 0] = 51
    cut = cut_out(np.full((8, 8, 3), 100, np.uint8), coverage)
    assert tuple(cut[3, 3]) == (100, 100, 100, 255)
    assert tuple(cut[7, 7]) == (255, 255, 255, 0)
    assert tuple(cut[0, 0]) == (224, 224, 224, 51)


@pytest.mark.parametrize(("centre", "radius"), [((30, 70), 12), ((64, 64), 60), ((5, 120), 20)])
def test_object_is_centred_and_fills_its_share(centre: tuple[int, int], radius: int) -> None:
    y, x = np.mgrid[:128, :128] + 0.5
    disc = np.hypot(x - centre[0], y - centre[1]) < radius
    picture = np.where(disc[..., None], (200, 30, 10, 255), (255, 255, 255, 0)).astype(np.uint8)
    framed = frame_object(picture, 64)
    rows, columns = np.nonzero(framed[..., 3] > 127)
    seen = np.array([[columns.min(), columns.max() + 1], [rows.min(), rows.max() + 1]])
    np.testing.assert_allclose(seen.mean(1), 32, atol=1)
    if radius < 20:  # wholly inside the picture
        np.testing.assert_allclose(np.diff(seen)[:, 0], 64 * OBJECT_SHARE, atol=1.5)
    assert tuple(framed[32, 32]) == (200, 30, 10, 255)
    assert tuple(framed[0, 0]) == (255, 255, 255, 0)


def test_picture_without_object_is_refused() -> None:
    with pytest.raises(ValueError, match="no object"):
        frame_object(np.zeros((32, 32, 4), np.uint8), 32)


def test_long_strip_is_shrunk_before_it_is_padded_to_a_square() -> None:
    """60,000 x 16 pixels are few, their square would be 14 GB."""
    pixels = np.full((16, 60_000, 3), 7, np.uint8)
    pixels[:, 30_000:] = 90
    strip = encoded(pixels)
    square = read_picture(strip, 64)
    assert square.shape == (64, 64, 3)
    assert (square[:31] == 255).all()
    assert read_picture(strip).shape == (2048, 2048, 3)


def test_decoder_that_stumbles_is_an_unreadable_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(*_, **__):
        raise AssertionError

    monkeypatch.setattr(Image.Image, "convert", stumble)
    with pytest.raises(ValueError, match="unreadable image: AssertionError"):
        read_picture(encoded(np.zeros((16, 16, 3), np.uint8)))
