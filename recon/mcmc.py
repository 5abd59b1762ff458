"""Densify as Markov chain Monte Carlo (Kheradmand et al. 2024, "3D Gaussian Splatting as MCMC"): `populate`.

Gaussians that have faded are moved to where opaque ones are, new ones are drawn there too, and all move by noise
a little. A Gaussian that becomes n in one place is given the opacity and size with which the n together look
as the one did (their eq. 9). Parameters and optimiser as in `recon.densify`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn import functional as F
from torch.optim import Optimizer

from recon.config import DensifyConfig
from recon.densify import append

MAX_COPIES = 51
"""A Gaussian becomes at most this many in one round."""
FADED = 0.005
"""Gaussians fainter than this are moved."""


def populate(
    params: dict[str, Parameter],
    optimizer: Optimizer,
    config: DensifyConfig,
    generator: torch.Generator,
    grow: bool = True,
) -> dict[str, int]:
    """One round: move the faded Gaussians, then add `grow_share` more, up to `max_gaussians`.

    Returns:
        Counts as `recon.densify.densify`: moved ones as ``pruned``, moved and new ones as ``cloned``.
    """
    opacities = params["opacities"].detach().sigmoid()
    faded = (opacities < FADED).nonzero()[:, 0]
    alive = (opacities >= FADED).nonzero()[:, 0]
    if not len(alive):
        return {"pruned": 0, "cloned": 0, "split": 0}
    if len(faded):
        sources = alive[_draw(opacities[alive], len(faded), generator)]
        _share(params, optimizer, sources)
        with torch.no_grad():
            for value in params.values():
                value[faded] = value[sources]
    added = 0
    if grow:
        count = len(opacities)
        added = max(min(config.max_gaussians, int((1 + config.grow_share) * count)) - count, 0)
    if added:
        sources = _draw(params["opacities"].detach().sigmoid(), added, generator)
        _share(params, optimizer, sources)
        append(params, optimizer, {name: value.detach()[sources] for name, value in params.items()})
    return {"pruned": len(faded), "cloned": len(faded) + added, "split": 0}


def relocation(opacities: Tensor, scales: Tensor, copies: Tensor) -> tuple[Tensor, Tensor]:
    """Opacity [K] and standard deviations [K,3] of each of `copies` [K] Gaussians that stand for one.

    o' = 1 - (1 - o)^(1/n);  s' = s o / sum_{i=1..n} sum_{k<i} binom(i-1, k) (-1)^k o'^(k+1) / sqrt(k+1).
    """
    shared = 1 - (1 - opacities.double()) ** (1 / copies)
    total = torch.zeros_like(shared)
    for i in range(1, int(copies.max()) + 1):
        inner = sum(
            math.comb(i - 1, k) * (-1) ** k / math.sqrt(k + 1) * shared ** (k + 1) for k in range(i)
        )  # exact in float64 for up to 51 copies of small opacities
        total = total + torch.where(copies >= i, inner, 0.0)
    factor = opacities / total
    return shared.to(opacities.dtype), (scales * factor[:, None]).to(scales.dtype)


def inject_noise(params: dict[str, Parameter], rate: float, generator: torch.Generator) -> None:
    """Moves every mean by noise of its own covariance, times `rate`, unless it is opaque (eq. 8)."""
    with torch.no_grad():
        visible = params["opacities"].sigmoid()
        strength = rate * torch.sigmoid(-100 * (visible - FADED))
        noise = torch.randn(len(visible), 3, generator=generator).to(visible.device)
        axes = rotations(params["quats"]) * params["scales"].exp()[:, None]
        params["means"].add_(strength[:, None] * torch.einsum("nij,nkj,nk->ni", axes, axes, noise))


def cost(params: dict[str, Parameter], config: DensifyConfig) -> Tensor:
    """What is added to the loss, so that Gaussians that are not needed fade (eq. 10)."""
    return (
        config.opacity_cost * params["opacities"].sigmoid().mean() + config.scale_cost * params["scales"].exp().mean()
    )


def rotations(quats: Tensor) -> Tensor:
    """Rotation matrices [N,3,3], columns the axes, of quaternions wxyz [N,4] of any length > 0."""
    w, x, y, z = F.normalize(quats, dim=-1).unbind(-1)
    rows = [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)]
    rows += [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)]
    rows += [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]
    return torch.stack(rows, -1).reshape(-1, 3, 3)


def _draw(weights: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` indices with replacement, in proportion to `weights` [N]."""
    return torch.multinomial(weights.cpu(), count, replacement=True, generator=generator).to(weights.device)


def _share(params: dict[str, Parameter], optimizer: Optimizer, sources: Tensor) -> None:
    """Makes the `sources` [K] (repeats allowed) ready to be copied: opacity, size and moments."""
    chosen, repeats = sources.unique(return_counts=True)
    with torch.no_grad():
        opacities, scales = relocation(
            params["opacities"][chosen].sigmoid(), params["scales"][chosen].exp(), (repeats + 1).clamp_max(MAX_COPIES)
        )
        params["opacities"][chosen] = opacities.clamp(FADED, 1 - 1e-6).logit()
        params["scales"][chosen] = scales.log()
    for value in params.values():
        for moment in optimizer.state.get(value, {}).values():
            if isinstance(moment, Tensor) and moment.shape == value.shape:
                moment[chosen] = 0
