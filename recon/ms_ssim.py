"""Compute multi-scale structural similarity (Wang et al. 2003; paper 3.3), target's moments kept: `ms_ssim`.

    ms_ssim(x, y) = l_L(x, y)^w_L * prod_{s<=L} cs_s(x, y)^w_s

The Gaussian window is applied as two banded matrices, one a side, which on a CPU beats
convolutions up to a few hundred pixels. Values equal those of `pytorch-msssim`, which takes over
above `MATRIX_LIMIT` pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

WINDOW = 11
SIGMA = 1.5
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
C1, C2 = 0.01**2, 0.03**2
MATRIX_LIMIT = 256


@dataclass(slots=True)
class Level:
    """One scale of the targets: ``image`` [V,3,h,w], its windowed ``mean`` and ``variance`` [V,3,h',w']."""

    image: Tensor
    mean: Tensor
    variance: Tensor


@dataclass(slots=True)
class SsimTarget:
    """Targets [V,3,H,W] in [0,1] with the moments of each scale (none where pytorch-msssim takes over)."""

    images: Tensor
    levels: list[Level]

    @classmethod
    def of(cls, images: Tensor) -> SsimTarget:
        """Prepare `images` [V,3,H,W] in [0,1]; one side may be as small as one pixel."""
        if max(images.shape[-2:]) > MATRIX_LIMIT:
            return cls(images, [])
        levels, level = [], images
        for _ in scale_weights(min(images.shape[-2:])):
            mean, square = _window(level), _window(level.square())
            levels.append(Level(level, mean, square - mean.square()))
            level = _halve(level)
        return cls(images, levels)


def scale_weights(side: int) -> tuple[float, ...]:
    """The weights of as many of the five scales as keep the smaller `side` >= the window, at least one.

    Fewer than five are rescaled to sum to 1.
    """
    count = 1
    while count < len(SCALE_WEIGHTS) and (side + 1) // 2 >= WINDOW:
        count, side = count + 1, (side + 1) // 2
    used = SCALE_WEIGHTS[:count]
    return used if count == len(SCALE_WEIGHTS) else tuple(weight / sum(used) for weight in used)


def ms_ssim(images: Tensor, target: SsimTarget, views: Tensor) -> Tensor:
    """MS-SSIM [B] in [0,1] of `images` [B,3,H,W] with the targets number `views` [B]."""
    weights = scale_weights(min(images.shape[-2:]))
    if not target.levels:
        return _package_ms_ssim(images, target.images[views], weights)
    result, level = torch.ones(images.shape[:2], device=images.device), images
    for scale, (weight, wanted) in enumerate(zip(weights, target.levels, strict=True)):
        if scale:
            level = _halve(level)
        mean_y, variance_y = wanted.mean[views], wanted.variance[views]
        mean_x, square, product = _window(torch.stack([level, level.square(), level * wanted.image[views]]))
        cross = mean_x * mean_y
        similarity = (2 * (product - cross) + C2) / (square - mean_x.square() + variance_y + C2)
        if scale == len(weights) - 1:
            similarity = similarity * (2 * cross + C1) / (mean_x.square() + mean_y.square() + C1)
        result = result * similarity.mean((-2, -1)).clamp_min(1e-8) ** weight
    return result.mean(1)


def _package_ms_ssim(images: Tensor, targets: Tensor, weights: tuple[float, ...]) -> Tensor:
    from pytorch_msssim import ms_ssim as reference

    return reference(images, targets, data_range=1.0, size_average=False, weights=list(weights))


def _window(images: Tensor) -> Tensor:
    rows, columns = images.shape[-2:]
    left = _band(rows, images.device)
    right = _band(columns, images.device)
    return left @ images @ right.transpose(0, 1)


def window_taps(count: int) -> Tensor:
    """The weights [count] of the Gaussian window, which sum to 1."""
    offsets = torch.arange(count) - count // 2
    kernel = (-(offsets**2) / (2 * SIGMA**2)).exp()
    return kernel / kernel.sum()


@cache
def _band(side: int, device: torch.device) -> Tensor:
    """The [side - k + 1, side] matrix that slides the k-tap Gaussian along a side; k shrinks to fit a small one."""
    taps = min(WINDOW, side - (side + 1) % 2)
    kernel = window_taps(taps)
    matrix = torch.zeros(side - taps + 1, side)
    for row in range(matrix.shape[0]):
        matrix[row, row : row + taps] = kernel
    return matrix.to(device)


def _halve(images: Tensor) -> Tensor:
    return F.avg_pool2d(images, 2, padding=[side % 2 for side in images.shape[-2:]])
