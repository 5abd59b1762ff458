"""Evaluate real spherical harmonics of degree 0 to 3, ordered as in 3D Gaussian splatting: `colors_of`.

    colour(d) = max(0, 0.5 + sum_k coefficient_k Y_k(d)),    k < K = (degree + 1)^2

d: unit vectors [...,3] from the camera to the Gaussian, Y_k(d) [...,K], coefficients [N,K,3] or by view [C,N,K,3].
"""

from __future__ import annotations

import torch
from torch import Tensor

MAX_DEGREE = 3
C0 = 0.28209479177387814
_C1 = 0.48860251190291987
_C2 = (1.0925484305920792, 0.31539156525252005, 0.5462742152960396)
_C3 = (0.5900435899266435, 2.890611442640554, 0.4570457994644658, 0.3731763325901154, 1.445305721320277)


def basis(degree: int, directions: Tensor) -> Tensor:
    """The (degree + 1)^2 basis functions [..., K] at unit vectors [..., 3]."""
    x, y, z = directions.unbind(-1)
    values = [torch.full_like(x, C0)]
    if degree >= 1:
        values += [-_C1 * y, _C1 * z, -_C1 * x]
    if degree >= 2:
        xx, yy, zz = x * x, y * y, z * z
        values += [_C2[0] * x * y, -_C2[0] * y * z, _C2[1] * (3 * zz - 1), -_C2[0] * x * z, _C2[2] * (xx - yy)]
        if degree >= 3:
            values += [
                -_C3[0] * y * (3 * xx - yy),
                _C3[1] * x * y * z,
                -_C3[2] * y * (5 * zz - 1),
                _C3[3] * z * (5 * zz - 3),
                -_C3[2] * x * (5 * zz - 1),
                _C3[4] * z * (xx - yy),
                -_C3[0] * x * (xx - 3 * yy),
            ]
    return torch.stack(values, -1)


def colors_of(degree: int, coefficients: Tensor, means: Tensor, viewmats: Tensor) -> Tensor:
    """Colours max(0, 0.5 + SH) as [1,N,3] (degree 0, seen alike by all cameras) or [C,N,3].

    Args:
        degree: 0 to 3; further coefficients are ignored.
        coefficients: [N,K,3] or [C,N,K,3] with K >= (degree + 1)^2.
        means: [N,3]; viewmats: [C,4,4] world to camera.

    Raises:
        ValueError: if the degree is out of range or there are too few coefficients.
    """
    if not 0 <= degree <= MAX_DEGREE:
        raise ValueError(f"sh_degree is {degree}; it must be 0 to {MAX_DEGREE}")
    used = (degree + 1) ** 2
    if coefficients.shape[-2] < used:
        raise ValueError(f"sh_degree {degree} needs {used} coefficients a channel, colors has {coefficients.shape[-2]}")
    per_view = coefficients if coefficients.dim() == 4 else coefficients[None]
    if degree == 0:
        return (per_view[:, :, 0] * C0 + 0.5).clamp_min(0.0)
    centres = torch.linalg.inv(viewmats)[:, :3, 3]
    directions = torch.nn.functional.normalize(means[None] - centres[:, None], dim=-1)
    values = basis(degree, directions)
    return (
        torch.einsum("cnk,cnkd->cnd", values, per_view[:, :, :used].expand(len(viewmats), -1, -1, -1)) + 0.5
    ).clamp_min(0.0)
