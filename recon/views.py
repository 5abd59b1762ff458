"""Render Gaussians to views of colour, coverage, depth and normals: `render_views`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from recon.cameras import Cameras
from recon.gaussians import Gaussians
from recon.rasterize import rasterize

COVERED = 0.5
"""Depth and normals are given where at least this share of a pixel is covered."""


@dataclass(kw_only=True, slots=True)
class Views:
    """V views of S pixels a side; `depth` and `normals` are 0 where the object does not cover half the pixel."""

    rgba: NDArray[np.uint8]
    """[V,S,S,4]: colour over white, and coverage."""
    depth: NDArray[np.float32]
    """[V,S,S]: distance along the camera's axis, world units."""
    normals: NDArray[np.float32]
    """[V,S,S,3]: unit vectors in the world, towards the camera."""


@torch.no_grad()
def render_views(gaussians: Gaussians, cameras: Cameras) -> Views:
    """Render colour, coverage, expected depth, and the normals of the surface that the depth describes."""
    device = gaussians.means.device
    viewmats, Ks = cameras.viewmats.to(device), cameras.Ks.to(device)
    images, alpha, _ = rasterize(
        gaussians.means,
        gaussians.quats,
        gaussians.standard_deviations,
        gaussians.alphas,
        gaussians.sh,
        viewmats,
        Ks,
        cameras.size,
        cameras.size,
        sh_degree=gaussians.sh_degree,
        backgrounds=torch.ones(len(cameras), 3, device=device),
        render_mode="RGB+ED",
    )
    covered = alpha[..., 0] >= COVERED
    depth = torch.where(covered, images[..., 3], 0.0)
    pixels = torch.cat([images[..., :3], alpha], -1).clamp(0, 1)
    return Views(
        rgba=(pixels * 255).round().byte().cpu().numpy(),
        depth=depth.cpu().numpy(),
        normals=normals_of(depth, viewmats, Ks).cpu().numpy(),
    )


def normals_of(depth: Tensor, viewmats: Tensor, Ks: Tensor) -> Tensor:
    """World normals [V,H,W,3] of depth [V,H,W] (0: nothing there), by the cross product of its slopes.

    Along each image axis the neighbour whose depth is nearer is taken, so that edges stay sharp.
    """
    height, width = depth.shape[1:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    grid = torch.stack([columns + 0.5, rows + 0.5, torch.ones(height, width)], -1).to(depth)
    points = torch.einsum("vij,hwj->vhwi", torch.linalg.inv(Ks), grid) * depth[..., None]
    normal = torch.linalg.cross(_slope(points, 1), _slope(points, 2), dim=-1)
    normal = torch.where((normal * points).sum(-1, keepdim=True) > 0, -normal, normal)
    world = torch.einsum("vji,vhwj->vhwi", viewmats[:, :3, :3], normal)
    return F.normalize(world, dim=-1)


def _slope(points: Tensor, axis: int) -> Tensor:
    """The step from or to the neighbour along an image axis, whichever is nearer in depth; 0 where there is neither."""
    size = points.shape[axis]
    step = points.narrow(axis, 1, size - 1) - points.narrow(axis, 0, size - 1)
    solid = (points[..., 2:] > 0).float()
    both = solid.narrow(axis, 1, size - 1) * solid.narrow(axis, 0, size - 1)
    step = torch.where(both > 0, step, torch.full_like(step, torch.inf))
    edge = torch.full_like(points.narrow(axis, 0, 1), torch.inf)
    ahead, behind = torch.cat([step, edge], axis), torch.cat([edge, step], axis)
    nearer = torch.where(ahead[..., 2:].abs() <= behind[..., 2:].abs(), ahead, behind) * solid
    return torch.nan_to_num(nearer, nan=0.0, posinf=0.0, neginf=0.0)
