"""Correct a turntable's cameras and exposures along with the Gaussians: `Pose`.

A generator shows its views from about, not exactly, the azimuths and the elevation that the fit takes
for granted. Every correction is small and bounded, and those of the single views have no common part, so
that the object keeps its place and its front.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import Parameter

from recon.config import PoseConfig


class Pose:
    """What is corrected of V cameras that look at the origin.

    Args:
        viewmats: [V,4,4] world to camera as estimated, from `recon.cameras.look_at_origin`.
        config: what is corrected; see `PoseConfig`.
    """

    def __init__(self, viewmats: Tensor, config: PoseConfig):
        self.base, self.config, self.limit = viewmats, config, math.radians(config.limit_degrees)
        count, device = len(viewmats), viewmats.device
        parts = {"elevation": (config.elevation, (1,)), "angles": (config.views, (count, 2))}
        parts |= {"shifts": (config.views, (count, 2)), "gains": (config.exposure, (count, 3))}
        self.params = {
            name: Parameter(torch.zeros(shape, device=device)) for name, (wanted, shape) in parts.items() if wanted
        }
        self.optimizer = torch.optim.Adam(list(self.params.values()), lr=config.rate)

    @property
    def elevation(self) -> float:
        """What is added to the estimated elevation, radians."""
        return float(self._elevation().detach()) if "elevation" in self.params else 0.0

    def viewmats(self, views: Tensor | None = None) -> Tensor:
        """The corrected matrices [B,4,4] of the `views` [B]; if none are given, of all, for the elevation alone."""
        turns = torch.zeros(len(self.base), 2, device=self.base.device)
        if "elevation" in self.params:
            turns = turns + self._elevation() * turns.new_tensor([0.0, 1.0])
        base = self.base
        if views is not None:
            if "angles" in self.params:
                turns = turns + _bounded(self.params["angles"], self.limit / 4)
            turns, base = turns[views], base[views]
        turned = raise_cameras(turn_cameras(base, turns[:, 0]), turns[:, 1])
        if views is None or "shifts" not in self.params:
            return turned
        shifts = _bounded(self.params["shifts"], self.limit / 4)[views] * base[:, 2, 3, None]
        moved = torch.cat([shifts, torch.zeros_like(shifts)], 1)[..., None]
        return turned + torch.cat([torch.zeros_like(turned[..., :3]), moved], -1)

    def expose(self, rgb: Tensor, alpha: Tensor, views: Tensor) -> Tensor:
        """Renders [B,H,W,3] over white with the object's part brightened as the `views` [B] want it."""
        if "gains" not in self.params:
            return rgb
        gains = _bounded(self.params["gains"], 0.5)[views][:, None, None]
        return rgb + gains * (rgb - (1 - alpha))

    def step(self, moving: bool = True) -> None:
        """One optimiser step from the last gradients; if not `moving` they are dropped."""
        if moving:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _elevation(self) -> Tensor:
        return self.limit * (self.params["elevation"] / self.limit).tanh()


def turn_cameras(viewmats: Tensor, azimuths: Tensor) -> Tensor:
    """The cameras [B,4,4] moved along their circle by `azimuths` [B] radians."""
    cosine, sine = azimuths.cos()[:, None], azimuths.sin()[:, None]
    x, y, z, shift = viewmats[:, :3].unbind(-1)
    top = torch.stack([x * cosine + z * sine, y, z * cosine - x * sine, shift], -1)
    return torch.cat([top, viewmats[:, 3:]], 1)


def raise_cameras(viewmats: Tensor, elevations: Tensor) -> Tensor:
    """The cameras [B,4,4] raised on their sphere by `elevations` [B] radians; they look at the origin."""
    cosine, sine = elevations.cos()[:, None], elevations.sin()[:, None]
    right, down, forward = viewmats[:, :3, :3].unbind(1)
    turned = torch.stack([right, cosine * down - sine * forward, cosine * forward + sine * down], 1)
    top = torch.cat([turned, viewmats[:, :3, 3:]], -1)
    return torch.cat([top, viewmats[:, 3:]], 1)


def _bounded(values: Tensor, limit: float) -> Tensor:
    """Rows without their mean, each within +-limit."""
    bounded = limit * (values / limit).tanh()
    return bounded - bounded.mean(0)
