"""Rasterise Gaussians in plain tiled torch, backward by autograd: `rasterize_tiled`.

What one writes without a kernel language, done carefully: projection of all Gaussians at once, one sort by
depth, then for every 16 x 16 tile all its pixels against just the Gaussians whose contour box meets it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

TILE = 16


def project(means: Tensor, quats: Tensor, scales: Tensor, viewmat: Tensor, K: Tensor) -> tuple[Tensor, ...]:
    """(means2d [N,2], covariance entries a, b, c [N], depths [N]) in one pinhole camera."""
    points = means @ viewmat[:3, :3].T + viewmat[:3, 3]
    x, y, z = points.unbind(-1)
    w, i, j, k = F.normalize(quats, dim=-1).unbind(-1)
    rotation = torch.stack(
        [
            1 - 2 * (j * j + k * k), 2 * (i * j - w * k), 2 * (i * k + w * j),
            2 * (i * j + w * k), 1 - 2 * (i * i + k * k), 2 * (j * k - w * i),
            2 * (i * k - w * j), 2 * (j * k + w * i), 1 - 2 * (i * i + j * j),
        ],
        -1,
    ).reshape(-1, 3, 3)  # fmt: skip
    axes = viewmat[:3, :3] @ (rotation * scales[:, None])
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    u = (fx / z)[:, None] * axes[:, 0] - (fx * x / z**2)[:, None] * axes[:, 2]
    v = (fy / z)[:, None] * axes[:, 1] - (fy * y / z**2)[:, None] * axes[:, 2]
    a, b, c = (u * u).sum(-1) + 0.3, (u * v).sum(-1), (v * v).sum(-1) + 0.3
    return torch.stack([fx * x / z + cx, fy * y / z + cy], -1), a, b, c, z


def contour_boxes(means2d: Tensor, a: Tensor, c: Tensor, opacities: Tensor) -> tuple[Tensor, Tensor]:
    """Corners [N,2] and [N,2] of the box around each Gaussian's 1/255 contour, pixels."""
    extent = (2 * (255 * opacities).clamp_min(1).log()).sqrt().clamp_max(3.33)
    reach = extent[:, None] * torch.stack([a, c], -1).sqrt()
    return means2d - reach, means2d + reach


def blend_tile(
    pixels: Tensor,  # [P,2]
    means2d: Tensor,  # [M,2], front to back, as all below
    conics: Tensor,  # [M,3]
    opacities: Tensor,  # [M]
    colors: Tensor,  # [M,3]
    background: Tensor,  # [3]
) -> Tensor:
    """Colours [P,3] of a tile's pixels."""
    dx = pixels[:, :1] - means2d[:, 0]
    dy = pixels[:, 1:] - means2d[:, 1]
    sigma = 0.5 * (conics[:, 0] * dx * dx + conics[:, 2] * dy * dy) + conics[:, 1] * dx * dy
    alphas = (opacities * torch.exp(-sigma)).clamp(max=0.999)
    alphas = alphas * (alphas >= 1 / 255)
    after = torch.cumprod(1 - alphas, -1)
    kept = after > 1e-4
    before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], -1)
    weights = alphas * before * kept
    return weights @ colors + (1 - weights.sum(-1, keepdim=True)) * background


def rasterize_tiled(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor,
    viewmat: Tensor, K: Tensor, size: int, background: Tensor,
) -> Tensor:  # fmt: skip
    """The image [size,size,3] of one view, all Gaussians in front of the camera; `size` a multiple of 16."""
    means2d, a, b, c, depths = project(means, quats, scales, viewmat, K)
    determinant = a * c - b * b
    conics = torch.stack([c / determinant, -b / determinant, a / determinant], -1)
    with torch.no_grad():
        order = depths.argsort()
        low, high = contour_boxes(means2d[order], a[order], c[order], opacities[order])
        visible = opacities[order] >= 1 / 255
    means2d, conics, opacities, colors = means2d[order], conics[order], opacities[order], colors[order]
    ys, xs = torch.meshgrid(torch.arange(TILE), torch.arange(TILE), indexing="ij")
    offsets = torch.stack([xs, ys], -1).reshape(-1, 2) + 0.5
    rows = []
    for top in range(0, size, TILE):
        in_row = (visible & (low[:, 1] < top + TILE) & (high[:, 1] > top)).nonzero()[:, 0]
        tiles = []
        for left in range(0, size, TILE):
            chosen = in_row[(low[in_row, 0] < left + TILE) & (high[in_row, 0] > left)]
            pixels = offsets + torch.tensor([left, top])
            tile = blend_tile(pixels, means2d[chosen], conics[chosen], opacities[chosen], colors[chosen], background)
            tiles.append(tile.reshape(TILE, TILE, 3))
        rows.append(torch.cat(tiles, 1))
    return torch.cat(rows, 0)
