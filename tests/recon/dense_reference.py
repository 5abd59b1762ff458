"""The rasteriser's definition written out densely: every Gaussian against every pixel, any float type, autograd.

Independent of the engine: the covariance is formed as a 3x3 matrix, the depth order by argsort, the
transmittance by cumulative products, and every gradient comes from torch.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotation_matrices(quats: Tensor) -> Tensor:
    """[N,3,3] of quaternions wxyz [N,4] of any length."""
    w, x, y, z = (quats / quats.norm(dim=-1, keepdim=True)).unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def project(means, quats, scales, viewmat, K, width, height, eps2d=0.3):
    """(means2d [N,2], cov2d [N,2,2], depths [N]) of one camera."""
    points = means @ viewmat[:3, :3].T + viewmat[:3, 3]
    x, y, z = points.unbind(-1)
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    axes = rotation_matrices(quats) * scales[:, None]
    covariance = viewmat[:3, :3] @ (axes @ axes.transpose(1, 2)) @ viewmat[:3, :3].T
    margin_x, margin_y = 0.15 * width / fx, 0.15 * height / fy
    tx = z * torch.minimum((width - cx) / fx + margin_x, torch.maximum(-cx / fx - margin_x, x / z))
    ty = z * torch.minimum((height - cy) / fy + margin_y, torch.maximum(-cy / fy - margin_y, y / z))
    zero = torch.zeros_like(z)
    jacobian = torch.stack(
        [torch.stack([fx / z, zero, -fx * tx / z**2], -1), torch.stack([zero, fy / z, -fy * ty / z**2], -1)], -2
    )
    cov2d = jacobian @ covariance @ jacobian.transpose(1, 2) + eps2d * torch.eye(2, dtype=means.dtype)
    return torch.stack([fx * x / z + cx, fy * y / z + cy], -1), cov2d, z


def blend(means2d, cov2d, depths, opacities, colors, background, width, height, near=0.01, far=1e10, min_alpha=1 / 255):
    """(image [H,W,D], alpha [H,W]) of one camera by explicit front-to-back compositing."""
    order = depths.argsort(stable=True)
    order = order[(depths[order] >= near) & (depths[order] <= far)]
    ys, xs = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([xs, ys], -1).reshape(-1, 1, 2).to(means2d.dtype) + 0.5
    offset = pixels - means2d[order]
    conics = torch.linalg.inv(cov2d[order])
    sigma = 0.5 * torch.einsum("pni,nij,pnj->pn", offset, conics, offset)
    alphas = (opacities[order] * (-sigma).exp()).clamp(max=0.999)
    alphas = torch.where(alphas >= min_alpha, alphas, torch.zeros_like(alphas))
    after = torch.cumprod(1 - alphas, -1)
    # The first Gaussian to bring the transmittance to 1e-4 and all behind it are left out.
    kept = after > 1e-4
    alphas = torch.where(kept, alphas, torch.zeros_like(alphas))
    after = torch.cumprod(1 - alphas, -1)
    before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], -1)
    final = after[:, -1] if len(order) else torch.ones(height * width, dtype=means2d.dtype)
    image = (alphas * before) @ colors[order] + final[:, None] * background
    return image.reshape(height, width, -1), (1 - final).reshape(height, width)


def rasterize(
    means, quats, scales, opacities, colors, viewmats, Ks, width, height, backgrounds, eps2d=0.3, depth=False
):
    """(renders [C,H,W,D (+1)], alphas [C,H,W], means2d list of [N,2]) with colors [N,D] or [C,N,D]."""
    images, alphas, centres = [], [], []
    for view, (viewmat, K) in enumerate(zip(viewmats, Ks, strict=True)):
        means2d, cov2d, depths = project(means, quats, scales, viewmat, K, width, height, eps2d)
        if means2d.requires_grad:
            means2d.retain_grad()
        features = colors if colors.dim() == 2 else colors[view]
        background = backgrounds[view]
        if depth:
            features = torch.cat([features, depths[:, None]], -1)
            background = torch.cat([background, background.new_zeros(1)])
        image, alpha = blend(means2d, cov2d, depths, opacities, features, background, width, height)
        images.append(image)
        alphas.append(alpha)
        centres.append(means2d)
    return torch.stack(images), torch.stack(alphas), centres
