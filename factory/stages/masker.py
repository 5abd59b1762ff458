"""Who cuts the object out of frames without alpha, loaded when first wanted."""

from __future__ import annotations

from typing import Any

import numpy as np


class Masker:
    """The masker of `views.masks`, loaded when frames without alpha first come by.

    Args:
        name: "pocket" or "rembg".
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._masker: Any = None

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """Coverage uint8 [V,H,W] of frames uint8 [V,H,W,3]."""
        from recon.masks import PocketMasker, RembgMasker

        if self._masker is None:
            self._masker = RembgMasker() if self.name == "rembg" else PocketMasker.load()
        return self._masker(frames)
