"""Render what is known of a real asset and judge a fit by it: `true_turntable`, `judge`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from recon.cameras import Cameras
    from recon.meshes.mesh import Mesh

SUBPIXELS = 4
"""Sides of a pixel are cut so often before the renderer's own supersampling, so that a half-covered pixel is known as
such: with the renderer's 2 x 2 samples alone, the masks of thin things differ from the true ones by 4% IoU."""


def true_turntable(
    mesh: Mesh, elevation: float, size: int, num_views: int = 16, start_azimuth: float = 0.0
) -> NDArray[np.uint8]:
    """`recon.meshes.load.render_turntable` with 64 samples a pixel: uint8 [num_views,size,size,4]."""
    from recon.cameras import OrbitConfig, turntable

    return true_views(mesh, turntable(elevation, size, OrbitConfig(num_views=num_views), start_azimuth))


def true_views(mesh: Mesh, cameras: Cameras) -> NDArray[np.uint8]:
    """`recon.meshes.load.render_mesh` with 64 samples a pixel: uint8 [V,S,S,4]."""
    from recon.meshes.load import render_mesh

    size, views = cameras.size, []
    for viewmat, K in zip(cameras.viewmats, cameras.Ks):
        fine = replace(cameras, viewmats=viewmat[None], Ks=K[None] * SUBPIXELS, size=SUBPIXELS * size)
        parts = render_mesh(mesh, fine)[0].reshape(size, SUBPIXELS, size, SUBPIXELS, 4)
        views.append(np.rint(parts.mean((1, 3))).astype(np.uint8))
    return np.stack(views)


def judge(
    truth: NDArray[np.uint8], rgb: NDArray[np.float32], alpha: NDArray[np.float32], perceptual: Any
) -> dict[str, float]:
    """Mean `psnr` (dB, over white), `iou` (masks at half coverage) and `lpips` of renders against the truth.

    Args:
        truth: [V,H,W,4]. rgb: [V,H,W,3], alpha: [V,H,W], in [0,1].
        perceptual: a `recon.perceptual.PerceptualNetwork`.
    """
    import torch

    wanted = truth[..., :3].astype(np.float32) / 255
    error = ((rgb.clip(0, 1) - wanted) ** 2).mean((1, 2, 3))
    ours, theirs = alpha > 0.5, truth[..., 3] > 127
    overlap = (ours & theirs).sum((1, 2)) / np.maximum((ours | theirs).sum((1, 2)), 1)
    with torch.no_grad():
        features = [perceptual.features(torch.from_numpy(x).permute(0, 3, 1, 2)) for x in (rgb.clip(0, 1), wanted)]
        lpips = perceptual.distance(*features).mean()
    return {"psnr": float((-10 * np.log10(error + 1e-10)).mean()), "iou": float(overlap.mean()), "lpips": float(lpips)}
