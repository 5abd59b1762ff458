"""Measure how near an asset comes to a known truth, in pictures, depth and surface: `picture_fidelity`.

Pictures are over white and the world is the unit sphere about the object, as everywhere in this repository.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MAX_PSNR = 100.0
"""dB, of equal pictures."""
F_SCORE_REACH = 0.05
"""World units within which a point of one surface counts as found on the other."""
MS_SSIM_SIDE = 160
"""`pytorch-msssim` wants a longer side for five scales of its window of 11 pixels; below it the window shrinks to 7."""
PICTURES = ("psnr", "ssim", "ms_ssim", "lpips_pocket", "mask_iou", "depth_error")
SURFACES = ("chamfer", "f_score")


class Perceptual(Protocol):
    """What tells pictures apart; `recon.perceptual.PerceptualNetwork` is one."""

    def features(self, images: Tensor) -> list[Tensor]:
        """Features [V,C,h,w] by layer of float32 [V,3,H,W] in [0, 1]."""
        ...

    def distance(self, features: list[Tensor], target: list[Tensor]) -> Tensor:
        """[V], >= 0, between the features of two sets of pictures."""
        ...


def psnr(pictures: NDArray[np.uint8], truth: NDArray[np.uint8]) -> NDArray[np.float64]:
    """10 log10(255^2 / mean squared error) in dB [V] of uint8 [V,H,W,3], at most MAX_PSNR."""
    error = np.square(pictures.astype(np.float64) - truth).mean((1, 2, 3))
    return np.minimum(10 * np.log10(255**2 / np.maximum(error, 1e-10)), MAX_PSNR)


def ssim(pictures: NDArray[np.uint8], truth: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Structural similarity [V] in [-1, 1] of uint8 [V,H,W,3], Gaussian window of sigma 1.5 (Wang et al. 2004)."""
    from skimage.metrics import structural_similarity

    settings = {"channel_axis": -1, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    pairs = zip(pictures, truth, strict=True)
    return np.array([structural_similarity(a, b, data_range=255, **settings) for a, b in pairs])


def ms_ssim(pictures: NDArray[np.uint8], truth: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Multi-scale structural similarity [V] in [0, 1] (Wang et al. 2003) of uint8 [V,H,W,3].

    Five scales of a window of 11 pixels, of 7 pixels for sides in (96, 160].

    Raises:
        ValueError: for sides of 96 pixels or less, which five scales do not fit in.
    """
    from pytorch_msssim import ms_ssim as reference

    side = min(pictures.shape[1:3])
    if side <= 96:
        raise ValueError(f"pictures of {side} pixels are too small for MS-SSIM; render at 97 or more (--size)")
    window = 11 if side > MS_SSIM_SIDE else 7
    values = reference(_tensor(pictures), _tensor(truth), data_range=1.0, size_average=False, win_size=window)
    return values.double().numpy()


@torch.inference_mode()
def lpips(pictures: NDArray[np.uint8], truth: NDArray[np.uint8], network: Perceptual) -> NDArray[np.float64]:
    """Perceptual distance [V], >= 0, of uint8 [V,H,W,3] by a network in the form of LPIPS (Zhang et al. 2018)."""
    return network.distance(network.features(_tensor(pictures)), network.features(_tensor(truth))).double().numpy()


def mask_iou(coverage: NDArray[np.uint8], truth: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Intersection over union [V] of silhouettes at half coverage, uint8 [V,H,W]; 1 where both are empty."""
    ours, theirs = coverage > 127, truth > 127
    union = (ours | theirs).sum((1, 2))
    return np.where(union, (ours & theirs).sum((1, 2)) / np.maximum(union, 1), 1.0)


def depth_error(depth: NDArray[np.float32], truth: NDArray[np.float32]) -> float | None:
    """Mean absolute difference in world units where both [V,H,W] have depth (> 0); None where that is nowhere."""
    both = (depth > 0) & (truth > 0)
    return float(np.abs(depth - truth)[both].mean()) if both.any() else None


def surface_distances(
    points: NDArray[np.floating], truth: NDArray[np.floating], reach: float = F_SCORE_REACH
) -> dict[str, float]:
    """Chamfer distance and F-score of points [N,3] and [M,3] on two surfaces.

    Returns:
        ``chamfer``: mean distance to the nearest point of the other, the average of both ways, world units;
        ``f_score``: harmonic mean in [0, 1] of the shares of either that lie within `reach` of the other.

    Raises:
        ValueError: when one of them has no points.
    """
    from scipy.spatial import KDTree

    if not len(points) or not len(truth):
        raise ValueError(f"surfaces of {len(points)} and {len(truth)} points cannot be compared; give at least 1 each")
    there, back = KDTree(truth).query(points)[0], KDTree(points).query(truth)[0]
    precision, recall = float((there <= reach).mean()), float((back <= reach).mean())
    total = precision + recall
    return {
        "chamfer": float(there.mean() + back.mean()) / 2,
        "f_score": 2 * precision * recall / total if total else 0.0,
    }


def picture_fidelity(
    views: NDArray[np.uint8], truth: NDArray[np.uint8], network: Perceptual
) -> dict[str, float | None]:
    """Means over views of ``psnr``, ``ssim``, ``ms_ssim`` (None for small views), ``lpips_pocket`` and ``mask_iou``.

    Args:
        views, truth: uint8 [V,H,W,4]: colour over white, and coverage.
    """
    ours, theirs = views[..., :3], truth[..., :3]
    small = min(views.shape[1:3]) <= 96
    return {
        "psnr": float(psnr(ours, theirs).mean()),
        "ssim": float(ssim(ours, theirs).mean()),
        "ms_ssim": None if small else float(ms_ssim(ours, theirs).mean()),
        "lpips_pocket": float(lpips(ours, theirs, network).mean()),
        "mask_iou": float(mask_iou(views[..., 3], truth[..., 3]).mean()),
    }


def _tensor(pictures: NDArray[np.uint8]) -> Tensor:
    """uint8 [V,H,W,3] as float32 [V,3,H,W] in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 255
