"""Clone, split and prune Gaussians while they are fitted (Kerbl et al. 2023, 5.2; A.1): `densify`.

Parameters are a dict of tensors with one row a Gaussian, each the single member of an optimiser
group of the same name. Every mutation carries the optimiser's moments along.

N Gaussians; g_i >= 0 [N] is the mean length of the loss's gradient by the position in the image, per half image
width, over the views that saw Gaussian i. Thresholds are of exp(scales), world units, and sigmoid(opacities).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from recon.config import DensifyConfig

SPLIT_SHRINK = 1.6
"""A split Gaussian's two parts are this much smaller (Kerbl et al. 2023)."""


def new_statistics(count: int, device: torch.device) -> dict[str, Tensor]:
    """Nothing known of `count` Gaussians: summed image-plane ``gradient`` [N], ``seen`` [N], in how many views, and
    once a view tells it, their largest blending ``weight`` [N]."""
    return {"gradient": torch.zeros(count, device=device), "seen": torch.zeros(count, device=device)}


def accumulate(statistics: dict[str, Tensor], gradient: Tensor, size: int, weights: Tensor | None = None) -> None:
    """Add the gradient [C,N,2] of the loss, a mean over C views, with respect to positions in pixels of a `size` image.

    A Gaussian counts as seen where its gradient is not exactly zero, so one that others hide is not.

    Args:
        weights: [C,N] largest blending weights in these views, where the engine tells them.
    """
    if weights is not None:
        most = weights.amax(0)
        statistics["weight"] = torch.maximum(statistics["weight"], most) if "weight" in statistics else most
    norms = gradient.norm(dim=-1) * (0.5 * size * gradient.shape[0])
    statistics["gradient"] += norms.sum(0)
    statistics["seen"] += (norms > 0).sum(0)


def densify(
    params: dict[str, Parameter],
    optimizer: Optimizer,
    statistics: dict[str, Tensor],
    config: DensifyConfig,
    generator: torch.Generator,
    grow: bool = True,
) -> dict[str, int]:
    """One round: prune, then clone and split the Gaussians with the largest mean gradient.

    Args:
        params: raw parameters, replaced in place by the new rows.
        statistics: of the iterations since the last round; start new ones afterwards.
        grow: False to prune only.

    Returns:
        The number of Gaussians ``pruned``, ``cloned`` and ``split``.
    """
    keep = ~prune_mask(params, statistics, config)
    if not keep.any():
        keep[params["opacities"].flatten().argmax()] = True
    if not keep.all():
        select(params, optimizer, keep.nonzero()[:, 0])
    counts = {"pruned": int((~keep).sum()), "cloned": 0, "split": 0}
    if grow:
        chosen = growth(statistics["gradient"][keep] / statistics["seen"][keep].clamp_min(1), config)
        longest = params["scales"].detach()[chosen].amax(1).exp()
        clones, splits = chosen[longest <= config.split_scale], chosen[longest > config.split_scale]
        copies = {name: value.detach()[clones] for name, value in params.items()}
        copies["means"] = copies["means"] + offsets(params, clones, generator)
        parts = halves(params, splits, generator)
        rest = torch.ones(len(params["means"]), dtype=torch.bool, device=splits.device)
        rest[splits] = False
        select(params, optimizer, rest.nonzero()[:, 0])
        append(params, optimizer, {name: torch.cat([copies[name], parts[name]]) for name in params})
        counts |= {"cloned": len(clones), "split": len(splits)}
    return counts


def prune_mask(params: dict[str, Parameter], statistics: dict[str, Tensor], config: DensifyConfig) -> Tensor:
    """Which Gaussians [N] are too faint, too long, hidden or needed by no view."""
    drop = params["opacities"].detach().sigmoid() < config.prune_opacity
    drop |= params["scales"].detach().amax(1).exp() > config.prune_scale
    if config.prune_hidden:
        drop |= statistics["seen"] == 0
    if "weight" in statistics:
        drop |= statistics["weight"] < config.prune_weight
    return drop


def growth(gradient: Tensor, config: DensifyConfig) -> Tensor:
    """Indices of the Gaussians to grow: the largest of `gradient` [N], within the share, the threshold and the cap."""
    room = min(int(config.grow_share * len(gradient)), config.max_gaussians - len(gradient))
    found = gradient.topk(max(room, 0))
    return found.indices[found.values > config.grow_gradient]


def offsets(params: dict[str, Parameter], chosen: Tensor, generator: torch.Generator) -> Tensor:
    """A random displacement [K,3] of each chosen Gaussian, drawn from its own distribution."""
    noise = torch.randn(len(chosen), 3, generator=generator).to(chosen.device)
    return _rotate(params["quats"].detach()[chosen], noise * params["scales"].detach()[chosen].exp())


def halves(params: dict[str, Parameter], chosen: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
    """Two smaller Gaussians [2K,...] for each chosen one."""
    twice = torch.cat([chosen, chosen])
    parts = {name: value.detach()[twice] for name, value in params.items()}
    parts["means"] = parts["means"] + offsets(params, twice, generator)
    parts["scales"] = parts["scales"] - torch.tensor(SPLIT_SHRINK).log().item()
    return parts


def select(params: dict[str, Parameter], optimizer: Optimizer, index: Tensor) -> None:
    """Keep only the rows `index` [K] of every parameter and of its moments."""
    _replace(params, optimizer, lambda name, value: value[index], lambda name, moment: moment[index])


def append(params: dict[str, Parameter], optimizer: Optimizer, rows: dict[str, Tensor]) -> None:
    """Add `rows` to every parameter; their moments start at zero."""
    _replace(
        params,
        optimizer,
        lambda name, value: torch.cat([value, rows[name]]),
        lambda name, moment: torch.cat([moment, torch.zeros_like(rows[name])]),
    )


def _replace(
    params: dict[str, Parameter],
    optimizer: Optimizer,
    of_value: Callable[[str, Tensor], Tensor],
    of_moment: Callable[[str, Tensor], Tensor],
) -> None:
    for group in optimizer.param_groups:
        name, old = group["name"], group["params"][0]
        state = optimizer.state.pop(old, {})
        new = Parameter(of_value(name, old.detach()))
        optimizer.state[new] = {
            key: of_moment(name, value) if isinstance(value, Tensor) and value.shape == old.shape else value
            for key, value in state.items()
        }
        group["params"] = [new]
        params[name] = new


def _rotate(quats: Tensor, vectors: Tensor) -> Tensor:
    w, axis = torch.nn.functional.normalize(quats, dim=-1).split([1, 3], -1)
    twist = 2 * torch.linalg.cross(axis, vectors)
    return vectors + w * twist + torch.linalg.cross(axis, twist)
