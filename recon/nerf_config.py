"""Set the NeRF baseline: `NerfConfig`. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from recon.config import check
from recon.loss_weights import LossConfig
from recon.user_error import UserError


@dataclass(kw_only=True, slots=True)
class NerfConfig:
    """A radiance field in a dense voxel grid, fitted to the frames (the last row of Table 2)."""

    iterations: int = 600
    """Optimiser steps, >= 1; each renders one view."""
    size: int = 64
    """Pixels a side of the renders that the losses see, in [16, 512]; larger targets are averaged down to it. The
    paper too trains its NeRF below its 512 pixels, because every pixel costs `samples` look-ups (4.2)."""
    resolution: int = 96
    """Voxels along a side of the cube [-1,1]^3, in [8, 256]; the fit starts at half of it."""
    samples: int = 96
    """Samples along a ray through the unit sphere, in [8, 1024]."""
    rays: int = 16_384
    """Rays at a time when views are rendered without gradients, >= 1; it bounds memory."""
    rate_density: float = 0.2
    """Adam's step size of the density's logits, > 0."""
    rate_colour: float = 0.1
    """Adam's step size of the colours' logits, > 0."""
    smooth: float = 1e-3
    """Weight of the mean squared step of logits between neighbouring voxels, >= 0: it fills what no ray sees."""
    loss: LossConfig = field(default_factory=LossConfig)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the fit runs; "auto" is the GPU where there is one."""

    def __post_init__(self) -> None:
        bounds = {"size": (16, 512), "resolution": (8, 256), "samples": (8, 1024)}
        for name, (low, high) in bounds.items():
            if not low <= getattr(self, name) <= high:
                raise UserError(f"nerf.{name} is {getattr(self, name)}; it must lie in [{low}, {high}]")
        if self.iterations < 1 or self.rays < 1:
            raise UserError(f"nerf.iterations is {self.iterations}, rays {self.rays}; both must be at least 1")
        check("nerf", self, above=("rate_density", "rate_colour"), least=("smooth",))
