"""Hold the parameters of 3D Gaussians, activate, start and render them: `Gaussians`, `init_ball`, `render`.

A Gaussian i has a centre mu_i, a rotation R(q_i), standard deviations s_i and an opacity o_i; at a point x it weighs

    o_i exp(-(x - mu_i)^T Sigma_i^-1 (x - mu_i) / 2),    Sigma_i = R(q_i) diag(s_i)^2 R(q_i)^T

Held are N of them as an optimiser wants them: means [N,3] in world units, quats [N,4] wxyz of any length > 0, scales
[N,3] as log s, opacities [N] as logit o, spherical harmonics sh0 [N,1,3] and shN [N,K-1,3], K = (degree + 1)^2.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional as F

from recon.cameras import Cameras
from recon.rasterize import Engine, rasterize
from recon.rasterize.spherical_harmonics import C0

MAX_SH_DEGREE = 3


@dataclass(slots=True)
class Gaussians:
    """Raw parameters of N Gaussians, float32, as an optimiser and a PLY file hold them.

    Raises:
        ValueError: if the shapes do not belong together.
    """

    means: Tensor
    """[N,3] centres, world units."""
    quats: Tensor
    """[N,4] orientations wxyz, any length > 0."""
    scales: Tensor
    """[N,3] natural logarithm of the standard deviations along the axes."""
    opacities: Tensor
    """[N] logit of the opacity."""
    sh0: Tensor
    """[N,1,3] spherical harmonics of degree 0; the base colour is 0.5 + 0.2821 sh0."""
    shN: Tensor
    """[N,K-1,3] the higher degrees' coefficients, K = (degree + 1)^2."""

    def __post_init__(self) -> None:
        count, rest = len(self.means), self.shN.shape[1] if self.shN.dim() == 3 else -1
        wanted = {"means": (count, 3), "quats": (count, 4), "scales": (count, 3), "opacities": (count,)}
        wanted |= {"sh0": (count, 1, 3), "shN": (count, rest, 3)}
        for name, shape in wanted.items():
            if tuple(getattr(self, name).shape) != shape:
                raise ValueError(f"{name} has shape {tuple(getattr(self, name).shape)}; {count} Gaussians need {shape}")
        if rest + 1 not in {(degree + 1) ** 2 for degree in range(MAX_SH_DEGREE + 1)}:
            raise ValueError(f"shN holds {rest} coefficients; degrees 0 to {MAX_SH_DEGREE} have 0, 3, 8 or 15")

    def __len__(self) -> int:
        return len(self.means)

    @property
    def sh_degree(self) -> int:
        """Degree of the spherical harmonics, 0 to 3."""
        return round((self.shN.shape[1] + 1) ** 0.5) - 1

    @property
    def base_colours(self) -> Tensor:
        """[N,3] colours of degree 0 in [0,1], the same from all sides."""
        return (0.5 + C0 * self.sh0[:, 0]).clamp(0, 1)

    @property
    def unit_quats(self) -> Tensor:
        """[N,4] orientations of length 1."""
        return F.normalize(self.quats, dim=-1)

    @property
    def standard_deviations(self) -> Tensor:
        """[N,3] along the axes, world units, > 0."""
        return self.scales.exp()

    @property
    def alphas(self) -> Tensor:
        """[N] opacities in (0, 1)."""
        return self.opacities.sigmoid()

    @property
    def sh(self) -> Tensor:
        """[N,K,3] all spherical harmonics coefficients."""
        return torch.cat([self.sh0, self.shN], 1) if self.shN.shape[1] else self.sh0

    def to(self, device: torch.device | str) -> Gaussians:
        """The same Gaussians on another device."""
        return Gaussians(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


def init_ball(
    num_points: int,
    *,
    radius: float = 0.5,
    opacity: float = 0.1,
    sh_degree: int = 0,
    generator: torch.Generator | None = None,
) -> Gaussians:
    """Isotropic grey Gaussians, uniform in a ball around the origin, where a fit starts (A.1).

    Each standard deviation is the radius of the ball's share of one point, radius / num_points^(1/3).

    Args:
        num_points: >= 1. radius: world units, > 0. opacity: in (0, 1). sh_degree: 0 to 3.

    Raises:
        ValueError: if an argument is out of its range.
    """
    if num_points < 1:
        raise ValueError(f"num_points is {num_points}; it must be at least 1")
    if not radius > 0:
        raise ValueError(f"radius is {radius}; it must be positive")
    if not 0 < opacity < 1:
        raise ValueError(f"opacity is {opacity}; it must lie in (0, 1)")
    means = points_in_ball(num_points, radius, generator)
    quats = torch.zeros(num_points, 4)
    quats[:, 0] = 1.0
    deviation = torch.tensor(radius / num_points ** (1 / 3))
    return Gaussians(
        means=means,
        quats=quats,
        scales=deviation.log().expand(num_points, 3).clone(),
        opacities=torch.tensor(opacity).logit().expand(num_points).clone(),
        sh0=torch.zeros(num_points, 1, 3),
        shN=torch.zeros(num_points, (sh_degree + 1) ** 2 - 1, 3),
    )


def points_in_ball(count: int, radius: float, generator: torch.Generator | None = None) -> Tensor:
    """Points [count,3], uniform in a ball around the origin."""
    directions = F.normalize(torch.randn(count, 3, generator=generator), dim=-1)
    return directions * radius * torch.rand(count, 1, generator=generator) ** (1 / 3)


def render(
    gaussians: Gaussians, cameras: Cameras, background: float = 1.0, engine: Engine = "auto"
) -> tuple[Tensor, Tensor]:
    """Pictures of Gaussians: rgb [C,H,W,3] over a grey `background` in [0, 1], and alpha [C,H,W,1]."""
    device = gaussians.means.device
    rgb, alpha, _ = rasterize(
        gaussians.means,
        gaussians.quats,
        gaussians.standard_deviations,
        gaussians.alphas,
        gaussians.sh,
        cameras.viewmats.to(device),
        cameras.Ks.to(device),
        cameras.size,
        cameras.size,
        sh_degree=gaussians.sh_degree,
        backgrounds=torch.full((len(cameras), 3), background, device=device),
        engine=engine,
    )
    return rgb, alpha
