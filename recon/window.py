"""Find the part of the frames that holds the object in any view, all that a fit needs to look at: `window_of`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MARGIN = 8
"""Pixels around the object that belong to it: Gaussians that stand out a little are still seen, and pulled in."""
STEP = 16
"""Sides are multiples of this, so that every scale of MS-SSIM halves them evenly."""

LEAST = 64
"""Pixels of a side: AlexNet needs 31, and a coarse start halves them."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Window:
    """A rectangle of whole pixels of a square frame; `left` and `top` are even."""

    left: int
    top: int
    width: int
    height: int
    size: int
    """Side of the frame."""

    @property
    def share(self) -> float:
        """Of the frame's pixels, in (0, 1]."""
        return self.width * self.height / self.size**2

    def crop(self, images: Tensor) -> Tensor:
        """The window of images [V,S,S,...]."""
        return images[:, self.top : self.top + self.height, self.left : self.left + self.width]

    def intrinsics(self, Ks: Tensor) -> Tensor:
        """Intrinsics [C,3,3] of cameras that see only the window."""
        shifted = Ks.clone()
        shifted[:, 0, 2] -= self.left
        shifted[:, 1, 2] -= self.top
        return shifted


def whole(size: int) -> Window:
    """The window that is the frame."""
    return Window(left=0, top=0, width=size, height=size, size=size)


def window_of(masks: Tensor) -> Window:
    """The least window of masks [V,S,S] that holds all that any of them covers, and the margin."""
    covered, size = masks.amax(0) > 0, masks.shape[-1]
    left, width = _span(covered.any(0), size)
    top, height = _span(covered.any(1), size)
    return Window(left=left, top=top, width=width, height=height, size=size)


def _span(occupied: Tensor, size: int) -> tuple[int, int]:
    """First pixel and length along one axis [S]."""
    places = torch.nonzero(occupied)[:, 0]
    low, high = max(int(places[0]) - MARGIN, 0), min(int(places[-1]) + 1 + MARGIN, size)
    length = max(-(-(high - low) // STEP) * STEP, LEAST)
    if length >= size:
        return 0, size
    low = min(max((low + high - length) // 2, 0), size - length)
    return low - low % 2, length
