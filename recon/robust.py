"""Count views less that disagree with all others, so that one bad frame does not smear the asset: `robust_weights`."""

from __future__ import annotations

import torch
from torch import Tensor

MEMORY = 0.5
"""Share of a view's former loss in its running mean."""
ROUNDS = 4
"""Visits of every view before any is mistrusted."""


class ViewWeights:
    """Weights of V views by their running losses.

    Args:
        count: V. deviations: see `FitConfig.robust`; 0 for equal weights.
    """

    def __init__(self, count: int, deviations: float, device: torch.device):
        self.deviations, self.losses = deviations, torch.zeros(count, device=device)
        self.visits = torch.zeros(count, device=device)

    def reset(self) -> None:
        """Forget the losses, as new targets have come."""
        self.losses.zero_()
        self.visits.zero_()

    def of(self, views: Tensor, losses: Tensor) -> Tensor:
        """Note the `losses` [B] of the `views` [B]; returns their weights [B]."""
        if not self.deviations:
            return torch.ones_like(losses)
        memory = torch.where(self.visits[views] > 0, MEMORY, 0.0)
        self.losses[views] = memory * self.losses[views] + (1 - memory) * losses
        self.visits[views] += 1
        trusted = torch.ones_like(losses)
        known = self.visits.min() >= ROUNDS  # stays on the device: nothing waits for it
        return torch.where(known, robust_weights(self.losses, self.deviations)[views], trusted)


def robust_weights(losses: Tensor, deviations: float) -> Tensor:
    """Weights [V], of mean 1, from the `losses` [V] of the views (Geman-McClure).

    w = 1 / (1 + z^2)^2, z = max(0, loss - median) / (deviations * 1.48 * median absolute deviation). A spread under
    a tenth of the median is taken for a tenth, so that views that fit alike stay alike.
    """
    median = losses.median()
    spread = torch.maximum(1.48 * (losses - median).abs().median(), 0.1 * median).clamp_min(1e-12)
    weights = (1 + ((losses - median).clamp_min(0) / (deviations * spread)).square()).reciprocal().square()
    return weights / weights.mean()
