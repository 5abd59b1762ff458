"""Render a radiance field in a dense voxel grid (Mildenhall et al. 2020; Sun et al. 2022): `VoxelField`.

Density and colour are trilinear in a cube of voxels. A ray with samples at distances t_i, delta apart, has

    alpha_i = 1 - exp(-sigma_i delta),  w_i = alpha_i prod_{j<i} (1 - alpha_j),  colour = sum w_i c_i + (1 - sum w_i)

over white.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recon.cameras import Cameras

OUTSIDE = 0.25
"""A voxel that lies outside the silhouettes of a larger share of the views is empty; some views may be wrong."""


@dataclass(slots=True)
class VoxelField:
    """A radiance field in [-1,1]^3, zero outside the unit sphere."""

    logits: Tensor
    """[1,4,R,R,R] over (z, y, x): density's logit, red, green, blue; the corners are voxel centres."""
    occupied: Tensor
    """[R,R,R] bool: where samples are looked up."""
    step: float
    """Distance between the samples of a ray, world units."""
    shift: float
    """Added to the density's logit."""

    def render(self, cameras: Cameras, rays: int = 16_384) -> tuple[Tensor, Tensor]:
        """rgb [C,S,S,3] over white and alpha [C,S,S,1], without gradients, `rays` at a time."""
        size, found = cameras.size, []
        with torch.no_grad():
            for view in range(len(cameras)):
                origin, directions = view_rays(cameras, view, self.logits.device)
                found += [self.march(origin, part) for part in directions.split(rays)]
        rgb, alpha = (torch.cat(parts) for parts in zip(*found, strict=True))
        return rgb.view(len(cameras), size, size, 3), alpha.view(len(cameras), size, size, 1)

    def march(self, origin: Tensor, directions: Tensor, jitter: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """rgb [B,3] over white and alpha [B,1] of rays from `origin` [3] along unit `directions` [B,3].

        Args:
            jitter: [B,1] in [0,1), where in a step the first sample lies; the middle if not given.
        """
        middle = -(directions @ origin)
        count = int(2 / self.step)
        offsets = (torch.arange(count, device=origin.device) + (0.5 if jitter is None else jitter)) * self.step - 1
        points = origin + (middle[:, None] + offsets)[..., None] * directions[:, None]
        wanted = self._is_occupied(points)
        values = self._look_up(points[wanted])
        sigma = points.new_zeros(points.shape[:2]).masked_scatter(wanted, F.softplus(values[0] + self.shift))
        colours = points.new_zeros(points.shape).masked_scatter(wanted[..., None], values[1:].sigmoid().T)
        after = torch.exp(-self.step * sigma.cumsum(1))
        weights = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], 1) - after
        alpha = 1 - after[:, -1:]
        return (weights[..., None] * colours).sum(1) + 1 - alpha, alpha

    def _is_occupied(self, points: Tensor) -> Tensor:
        side = len(self.occupied)
        x, y, z = ((points + 1) * ((side - 1) / 2)).round().long().clamp(0, side - 1).unbind(-1)
        return self.occupied[z, y, x] & (points.square().sum(-1) < 1)

    def _look_up(self, points: Tensor) -> Tensor:
        """Logits [4,P] at points [P,3], trilinear."""
        return F.grid_sample(self.logits, points[None, None, None], align_corners=True)[0, :, 0, 0]


def view_rays(cameras: Cameras, view: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The eye [3] and unit directions [S*S,3], world, of a view's pixel centres, row by row."""
    viewmat, K = cameras.viewmats[view].to(device), cameras.Ks[view].to(device)
    steps = torch.arange(cameras.size, device=device) + 0.5
    rows, columns = torch.meshgrid(steps, steps, indexing="ij")
    pixels = torch.stack([columns, rows, torch.ones_like(rows)], -1).view(-1, 3)
    directions = pixels @ torch.linalg.inv(K).T @ viewmat[:3, :3]
    return -viewmat[:3, :3].T @ viewmat[:3, 3], F.normalize(directions, dim=-1)


@torch.no_grad()
def silhouette_hull(masks: Tensor, cameras: Cameras, side: int) -> Tensor:
    """Voxels [side]*3 (z, y, x) that no more than `OUTSIDE` of the views see outside the masks [V,S,S]."""
    steps = torch.linspace(-1, 1, side, device=masks.device)
    points = torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij")[::-1], -1).view(-1, 3)
    viewmats, Ks = cameras.viewmats.to(masks), cameras.Ks.to(masks)
    footprint = float(2 / side * Ks[:, 0, 0].max() / (viewmats[:, 2, 3].min() - 1).clamp_min(0.1))
    reach = 1 + int(np.ceil(footprint))
    wide = F.max_pool2d(masks[:, None], 2 * reach + 1, 1, reach)
    outside = torch.zeros(len(points), device=masks.device)
    for viewmat, K, mask in zip(viewmats, Ks, wide, strict=True):
        seen = (points @ viewmat[:3, :3].T + viewmat[:3, 3]) @ K.T
        places = 2 * seen[:, :2] / seen[:, 2:] / cameras.size - 1
        outside += F.grid_sample(mask[None], places[None, None], mode="nearest", align_corners=False)[0, 0, 0] < 0.1
    return (outside <= OUTSIDE * len(masks)).view(side, side, side)
