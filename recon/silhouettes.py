"""Carve a grid by the outlines of Gaussians seen from all around, their soft visual hull: `least_coverage`."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from recon.cameras import Cameras, intrinsics, look_at_origin
from recon.config import OrbitConfig
from recon.gaussians import Gaussians, render

SIDE = 384
"""Pixels of a view."""
OUTLINES = {15.0: 12, 50.0: 8}
"""Views at each elevation, in degrees, whose outlines count: near those that Gaussians are fitted to. From below and
from straight above they can have holes where no frame has looked."""


def rings(views: dict[float, int], gaussians: Gaussians) -> Cameras:
    """So many cameras at each elevation in degrees, `SIDE` pixels each, at the distance of `OrbitConfig`.

    Gaussians that lie outside of the unit sphere are looked at from farther off, until all but a thousandth of them
    are in view.
    """
    elevations = torch.tensor([math.radians(degrees) for degrees, count in views.items() for _ in range(count)])
    azimuths = torch.cat([torch.arange(count) * (2 * math.pi / count) for count in views.values()])
    orbit, reaches = OrbitConfig(), gaussians.means.norm(dim=1).cpu().numpy()
    radius = max(1.0, float(np.quantile(reaches, 0.999)))
    viewmats = look_at_origin(azimuths, elevations, orbit.distance * radius)
    return Cameras(
        viewmats=viewmats, Ks=intrinsics(SIDE, orbit.fov_degrees).expand(len(viewmats), 3, 3).clone(), size=SIDE
    )


@torch.no_grad()
def least_coverage(
    gaussians: Gaussians, origin: NDArray[np.float64], step: float, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """The least coverage that any view shows where a sample lies: float32 [X,Y,Z] in [0,1], 1 where none looks.

    Args:
        origin: world position [3] of the first sample of the grid of `shape`; `step`: between samples.
    """
    axes = [torch.arange(count) * step + float(start) for count, start in zip(shape, origin, strict=True)]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3).float()
    cameras, least = rings(OUTLINES, gaussians), torch.ones(len(points))
    for view in range(len(cameras)):
        viewmat, K = cameras.viewmats[view], cameras.Ks[view]
        one = replace(cameras, viewmats=viewmat[None], Ks=K[None])
        coverage = render(gaussians, one)[1].permute(0, 3, 1, 2).cpu()
        local = points @ viewmat[:3, :3].T + viewmat[:3, 3]
        grid = 2 * (local @ K.T)[:, :2] / local[:, 2:] / cameras.size - 1
        shown = F.grid_sample(coverage, grid.view(1, 1, -1, 2), align_corners=False)[0, 0, 0]
        looked = (local[:, 2] > 0) & (grid.abs() < 1).all(1)
        least = torch.minimum(least, torch.where(looked, shown, 1.0))
    return least.reshape(shape).numpy()
