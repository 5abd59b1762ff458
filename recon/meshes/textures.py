"""Decode the images of a model, each once, and number its textures: `Textures`."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import numpy as np
from numpy.typing import NDArray

from recon.pictures import PictureSizeError, decoded

MAX_IMAGE_PIXELS, MAX_TEXTURE_PIXELS = 64 << 20, 128 << 20
"""Of one image, and of all of them together."""
REPEAT, CLAMP, MIRROR = 0, 1, 2
"""How a texture goes on beyond its edges."""

_KTX2 = b"\xabKTX 20\xbb"


class Textures:
    """The textures of one model: images, and how each is sampled."""

    def __init__(self) -> None:
        self.images: dict[Hashable, tuple[int, NDArray[np.uint8]]] = {}
        self.rows: list[tuple[int, int, int, int, int]] = []
        self.pixels = 0

    def add(self, key: Hashable, data: Callable[[], bytes], name: str, wraps: tuple[int, int]) -> int:
        """The number of a texture.

        Args:
            key: tells the model's images apart. data: gives the image's bytes. name: of the image, in errors.
            wraps: how it goes on in u and v, each one of REPEAT, CLAMP, MIRROR.

        Raises:
            ValueError: when it is no PNG, JPEG or WebP, is broken, or passes a limit.
        """
        if key not in self.images:
            image = self._decoded(data(), name)
            self.images[key] = (self.pixels, image)
            self.pixels += image.shape[0] * image.shape[1]
        offset, image = self.images[key]
        row = (offset, image.shape[1], image.shape[0], *wraps)
        if row not in self.rows:
            self.rows.append(row)
        return self.rows.index(row)

    def arrays(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """`texels` and `textures` of a `Mesh`."""
        flat = [image.reshape(-1, 4) for _, image in self.images.values()]
        return (np.concatenate(flat) if flat else np.zeros((1, 4), np.uint8),
                np.array(self.rows, np.int64).reshape(-1, 5))  # fmt: skip

    def _decoded(self, data: bytes, name: str) -> NDArray[np.uint8]:
        """An image [H,W,4], sRGB and alpha."""
        if data[:8] == _KTX2:
            raise ValueError(f"{name} is a KTX2 texture; convert it with `gltf-transform ktxdecompress IN.glb OUT.glb`")
        try:
            return np.array(decoded(data, min(MAX_IMAGE_PIXELS, MAX_TEXTURE_PIXELS - self.pixels), name, upright=False))
        except PictureSizeError as error:
            raise PictureSizeError(
                f"{error}, with at most {MAX_IMAGE_PIXELS} an image and {MAX_TEXTURE_PIXELS} for all of a model "
                "together: shrink its textures"
            ) from error
