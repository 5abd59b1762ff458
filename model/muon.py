"""Optimise matrices by their orthogonalised momentum and all else by AdamW: `Muon`.

A weight W [m,n] with gradient G moves by momentum mu in [0,1), rate eta and weight decay, A looking one step ahead:

    M <- mu M + (1 - mu) G,    A = mu M + (1 - mu) G = U S V^T,    W <- (1 - eta decay) W - 0.2 eta sqrt(max(m,n)) U V^T
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

_LEAST_SIDE = 32
"""Matrices with a shorter side go to AdamW."""
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic Newton-Schulz iteration; chosen by Keller Jordan (Muon, 2024) for steepness at zero."""
_ITERATIONS = 5
_RMS = 0.2
"""Root mean square of an update over the rate, about AdamW's, so that one rate suits both (Liu et al. 2025)."""


def orthogonalised(matrix: Tensor) -> Tensor:
    """About U V^T of a matrix's singular value decomposition U S V^T, [m,n], in bfloat16."""
    a, b, c = _COEFFICIENTS
    x = matrix.bfloat16()
    wide = x if x.shape[0] <= x.shape[1] else x.T
    wide = wide / (wide.norm() + 1e-7)
    for _ in range(_ITERATIONS):
        gram = wide @ wide.T
        wide = a * wide + (b * gram + c * gram @ gram) @ wide
    return wide if x.shape[0] <= x.shape[1] else wide.T


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum for weights of two or more axes (the first against the others), AdamW for the rest.

    Every tensor must be whole: not for sharded parameters.
    """

    def __init__(
        self, parameters: Iterable[Tensor], betas: tuple[float, float] = (0.9, 0.98), weight_decay: float = 0.01,
        momentum: float = 0.95,
    ) -> None:  # fmt: skip
        every = list(parameters)
        matrices = [p for p in every if p.ndim > 1 and min(p.shape[0], p[0].numel()) >= _LEAST_SIDE]
        chosen = {id(p) for p in matrices}
        others = [p for p in every if id(p) not in chosen]
        groups = [{"params": group, "matrices": kind} for group, kind in ((matrices, True), (others, False)) if group]
        super().__init__(groups, {"lr": 1e-3, "betas": betas, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            found = [p for p in group["params"] if p.grad is not None]
            torch._foreach_mul_(found, 1 - group["lr"] * group["weight_decay"])
            if group["matrices"]:
                self._turn(found, group)
            elif found:
                self._adam(found, group)

    def _turn(self, parameters: Sequence[Tensor], group: dict[str, Any]) -> None:
        for p in parameters:
            assert p.grad is not None
            average = self.state[p].setdefault("exp_avg", torch.zeros_like(p))
            average.lerp_(p.grad, 1 - group["momentum"])
            ahead = p.grad.lerp(average, group["momentum"]).flatten(1)
            update = orthogonalised(ahead).to(p.dtype)
            p.add_(update.reshape(p.shape), alpha=-group["lr"] * _RMS * max(update.shape) ** 0.5)

    def _adam(self, parameters: Sequence[Tensor], group: dict[str, Any]) -> None:
        first, second = group["betas"]
        states = [self.state[p] for p in parameters]
        for p, state in zip(parameters, states, strict=True):
            for name in ("exp_avg", "exp_avg_sq"):
                state.setdefault(name, torch.zeros_like(p))
            state["step"] = state.get("step", torch.zeros(())) + 1
        grads = [p.grad for p in parameters if p.grad is not None]
        averages, squares = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq"))
        torch._foreach_lerp_(averages, grads, 1 - first)
        torch._foreach_mul_(squares, second)
        torch._foreach_addcmul_(squares, grads, grads, 1 - second)
        for p, state, average, square in zip(parameters, states, averages, squares, strict=True):
            taken = state["step"].item()
            scale = (square / (1 - second**taken)).sqrt_().add_(1e-8)
            p.addcdiv_(average, scale, value=-group["lr"] / (1 - first**taken))
