"""Embed pictures and prompts by CLIP, to find near-duplicates among them: `Embedder`."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from eval.config import ClipConfig
from model.captioner import CaptionerConfig

Pixels = NDArray[np.uint8]
"""A picture [H,W,4] with straight alpha."""
BATCH = 16
"""Pictures that are captioned at a time."""


class Embedder:
    """Unit vectors of pictures and texts; a text is embedded once.

    Attributes:
        dimension: of the vectors.
        name: of the model.
    """

    def __init__(self, config: ClipConfig) -> None:
        from eval.clip import Scorer

        self._scorer = Scorer.load(config)
        self._texts: dict[str, NDArray[np.float32]] = {}
        self.name = self._scorer.name
        self.dimension = int(self._scorer.embed_texts([""]).shape[1])

    def pictures(self, pictures: Sequence[Pixels]) -> NDArray[np.float32]:
        """[B,D] of pictures, over white."""
        return self._scorer.embed_images(pictures).numpy()

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """[B,D] of texts."""
        fresh = [text for text in dict.fromkeys(texts) if text not in self._texts]
        if fresh:
            self._texts |= dict(zip(fresh, self._scorer.embed_texts(fresh).numpy()))
        return np.stack([self._texts[text] for text in texts])


def pixels_of(data: bytes) -> Pixels:
    """An encoded picture; ValueError for one that cannot be decoded."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as picture:
            return np.asarray(picture.convert("RGBA"))
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"its picture cannot be decoded: {error}; make the asset again") from error


class Captions:
    """Captions by an image-to-text model: pictures to one text each.

    Attributes:
        name: of the model.
    """

    def __init__(self, config: CaptionerConfig) -> None:
        from model.captioner import Captioner

        self._captioner = Captioner(config)
        self.name = self._captioner.name

    def __call__(self, pictures: Sequence[Pixels]) -> list[str]:
        """Over white, BATCH at a time."""
        texts: list[str] = []
        for start in range(0, len(pictures), BATCH):
            texts += self._captioner([over_white(pixels) for pixels in pictures[start : start + BATCH]])
        return texts


def captions_of(config: CaptionerConfig) -> Captions | None:
    """Who writes captions; None where no model is named."""
    return Captions(config) if config.model else None


def over_white(pixels: Pixels) -> NDArray[np.uint8]:
    """Straight RGBA [H,W,4] over white, [H,W,3]."""
    alpha = pixels[..., 3:] / 255
    return np.rint(pixels[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)
