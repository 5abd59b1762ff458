"""Compute MS-SSIM with kept targets on a CPU, value and gradient in one pass: `SsimLoss`.

Values and gradients equal those of `recon.ms_ssim` to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon import ssim_kernels as kernels
from recon.ms_ssim import WINDOW, SsimTarget, scale_weights, window_taps

LEAST = 1e-8
"""Similarities count as at least this, as in `recon.ms_ssim`."""
Shape = tuple[int, int, int]


@dataclass(slots=True)
class _Level:
    """One scale of the targets, rows as `recon.ssim_kernels` wants them."""

    shape: Shape
    images: NDArray[np.float32]
    """[V, H * stride]."""
    means: NDArray[np.float32]
    """[V, (H - 10) * stride]; `variances` as well."""
    variances: NDArray[np.float32]

    @property
    def windows(self) -> float:
        """Places of the window in one colour."""
        height, used, _ = self.shape
        return (height - WINDOW + 1) * (used - kernels.REACH) / 3

    def of(self, view: int) -> tuple[NDArray, NDArray, NDArray]:
        """What `compare` takes of a view."""
        return self.images[view], self.means[view], self.variances[view]


class SsimLoss:
    """MS-SSIM with targets [V,3,H,W] in [0,1] of sides that `takes` them."""

    def __init__(self, targets: SsimTarget):
        self.taps, self.levels = window_taps(WINDOW).numpy(), []
        self.weights = scale_weights(min(targets.images.shape[-2:]))
        for level in targets.levels:
            height, width = level.image.shape[-2:]
            stride = kernels.stride_of(width)
            parts = (_rows(part, stride) for part in (level.image, level.mean, level.variance))
            self.levels.append(_Level((height, 3 * width, stride), *parts))

    @staticmethod
    def takes(height: int, width: int) -> bool:
        """Whether pictures of these sides are halved evenly at every scale."""
        scales = len(scale_weights(min(height, width)))
        return min(height, width) >= WINDOW and (height | width) % 2 ** (scales - 1) == 0

    def __call__(self, pictures: Tensor, views: list[int]) -> Tensor:
        """MS-SSIM [B] of pictures [B,H,W,3] with targets `views`, with gradients."""
        return _Similarity.apply(pictures, self, views)  # type: ignore[return-value]

    def value(self, picture: Tensor, view: int, wanted: bool) -> tuple[float, Tensor | None]:
        """The similarity of one picture [H,W,3], and its gradient if it is wanted."""
        scales = self._scales(picture)
        means, slopes = [], []
        for number, (level, x) in enumerate(zip(self.levels, scales, strict=True)):
            height, _, stride = level.shape
            sums = np.zeros(kernels.PERIOD, np.float32)
            slopes.append(np.zeros(3 * (height + WINDOW - 1) * stride, np.float32))
            last = number == len(self.levels) - 1
            kernels.compare(x, level.of(view), level.shape, self.taps, last, sums, slopes[-1])
            means.append(sums.reshape(-1, 3).sum(0, dtype=np.float64) / level.windows)
        clamped = np.maximum(means, LEAST)
        by_colour = np.prod(clamped ** np.array(self.weights)[:, None], 0)
        if not wanted:
            return float(by_colour.mean()), None
        factors = by_colour / 3 * np.array(self.weights)[:, None] / clamped * (np.array(means) > LEAST)
        return float(by_colour.mean()), self._back(picture, view, scales, factors, slopes)

    def _scales(self, picture: Tensor) -> list[NDArray[np.float32]]:
        """The picture at every scale, in rows."""
        scales = [_rows(picture.permute(2, 0, 1)[None], self.levels[0].shape[2])[0]]
        for level, finer in zip(self.levels[1:], self.levels, strict=False):
            scales.append(np.zeros(level.images.shape[1], np.float32))
            kernels.halve(scales[-2], finer.shape, scales[-1], level.shape[2])
        return scales

    def _back(self, picture: Tensor, view: int, scales: list[NDArray], factors: NDArray, slopes: list[NDArray]):
        """The gradient [H,W,3] of the picture, from the slopes of every scale's moments, coarsest first."""
        found, coarser = np.zeros(0, np.float32), 0
        for level, x, factor, slope in reversed(list(zip(self.levels, scales, factors, slopes, strict=True))):
            finer = np.zeros(level.images.shape[1], np.float32)
            repeated = np.tile(factor / level.windows, kernels.WIDTH).astype(np.float32)
            kernels.spread(x, level.images[view], level.shape, self.taps, repeated, slope, finer)
            if len(found):
                kernels.double(found, coarser, level.shape, finer)
            found, coarser = finer, level.shape[2]
        height, used, stride = self.levels[0].shape
        return torch.from_numpy(found).view(height, stride)[:, :used].reshape(picture.shape)


class _Similarity(torch.autograd.Function):
    """(pictures) -> MS-SSIM, of a `SsimLoss` and the numbers of its targets."""

    @staticmethod
    def forward(ctx: Any, *args: Any) -> Tensor:
        """One picture after the other; gradients are kept where they are wanted."""
        pictures, loss, views = args
        pairs = zip(pictures, views, strict=True)
        values, gradients = zip(*(loss.value(*pair, ctx.needs_input_grad[0]) for pair in pairs), strict=True)
        ctx.gradients = gradients
        return pictures.new_tensor(values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """The kept gradients, each times its view's."""
        return torch.stack(ctx.gradients) * grads[0][:, None, None, None], None, None


def _rows(images: Tensor, stride: int) -> NDArray[np.float32]:
    """Images [V,3,h,w] in rows of `stride`, flat, [V, h * stride]."""
    count, _, height, width = images.shape
    rows = images.new_zeros(count, height, stride)
    rows[..., : 3 * width] = images.permute(0, 2, 3, 1).flatten(2)
    return rows.flatten(1).numpy()
