"""Fit the NeRF baseline of Table 2, a voxel field under the losses of the Gaussians' fit: `fit_nerf`.

The losses see whole renders, since LPIPS and MS-SSIM judge images, so each step renders one view at
`NerfConfig.size`. Samples are skipped outside the silhouettes' hull and in voxels that have become empty.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn import functional as F

from recon.cameras import Cameras
from recon.device import device_of
from recon.losses import FitLoss, network_of
from recon.memory import PeakMemory
from recon.nerf_config import NerfConfig
from recon.targets import checked_targets
from recon.voxels import VoxelField, silhouette_hull, view_rays

START_ALPHA = 0.02
"""Opacity of a sample at the start: little enough that the far side is seen, enough that it has gradients."""
EMPTY_ALPHA = 1e-3
"""Voxels whose samples stay under this opacity are skipped."""
PRUNE_EVERY = 50
REFINE_AT = 1 / 3
"""Share of the iterations after which the grid doubles its resolution."""
RECORD_EVERY = 50


@dataclass(slots=True)
class NerfResult:
    """A fitted field, what its losses were every 50 iterations, and what it cost."""

    field: VoxelField
    history: list[dict[str, Any]]
    seconds: float
    peak_bytes: int | None
    """Growth of memory to the peak of the fit; None where the system does not tell."""


def fit_nerf(
    frames: np.ndarray, masks: np.ndarray | None, cameras: Cameras, config: NerfConfig | None = None, seed: int = 0
) -> NerfResult:
    """Fit a voxel field to frames uint8 [V,S,S,3|4] over white; equal seeds give equal fields on a CPU.

    Args:
        masks: coverage uint8 [V,S,S]; the frames' alpha channel if not given.
        cameras: one a frame, in their order.

    Raises:
        ValueError: as `recon.fitter.Fitter.set_targets`, or if the frames are no whole multiple of `config.size`.
        FloatingPointError: if the field is no longer finite.
    """
    config = config or NerfConfig()
    device = device_of(config.device)
    started = time.perf_counter()
    with PeakMemory(device) as memory:
        fitter = _Fitter(frames, masks, cameras, config, seed, device)
        for _ in range(config.iterations):
            fitter.step()
        field = fitter.finished()
    return NerfResult(field, fitter.history, time.perf_counter() - started, memory.bytes)


class _Fitter:
    """The state of one fit."""

    def __init__(self, frames, masks, cameras: Cameras, config: NerfConfig, seed: int, device: torch.device):
        rgb, alpha = checked_targets(frames, masks, len(cameras), cameras.size)
        factor = max(1, cameras.size // config.size)
        if cameras.size % factor or cameras.size // factor > config.size:
            raise ValueError(
                f"frames of {cameras.size} pixels are no multiple of nerf.size {config.size}; set it to a divisor"
            )
        rgb, alpha = (_shrunk(x, factor).to(device) for x in (rgb, alpha[..., None]))
        Ks = cameras.Ks.clone()
        Ks[:, :2] /= factor
        self.cameras = Cameras(viewmats=cameras.viewmats, Ks=Ks, size=cameras.size // factor)
        network = network_of(config.loss, device) if config.loss.lpips else None
        self.loss = FitLoss(config.loss, rgb, alpha[..., 0], network)
        self.config, self.device, self.iteration, self.queue = config, device, 0, []
        self.history: list[dict[str, Any]] = []
        self.generator = torch.Generator().manual_seed(seed)
        step, side = 2 / config.samples, max(8, config.resolution // 2)
        shift = float(np.log(np.expm1(-np.log1p(-START_ALPHA) / step)))
        self.hull = silhouette_hull(self.loss.alpha, self.cameras, side)
        if not self.hull.any():
            raise ValueError("the masks leave no voxel in common; check masks, elevation and the order of the frames")
        self.field = VoxelField(torch.zeros(1, 4, side, side, side, device=device), self.hull, step, shift)
        self._optimise(self.field.logits)

    def _optimise(self, logits: Tensor) -> None:
        """Go on from these logits with new moments."""
        self.density, self.colour = Parameter(logits[:, :1].clone()), Parameter(logits[:, 1:].clone())
        rates = ((self.density, self.config.rate_density), (self.colour, self.config.rate_colour))
        self.optimizer = torch.optim.Adam([{"params": [p], "lr": rate, "rate": rate} for p, rate in rates], fused=True)

    def step(self) -> None:
        """One view, one optimiser step."""
        if self.iteration == int(REFINE_AT * self.config.iterations):
            self._refine()
        view = self._next_view()
        self.field.logits = torch.cat([self.density, self.colour], 1)
        origin, directions = view_rays(self.cameras, view, self.device)
        jitter = torch.rand(len(directions), 1, generator=self.generator).to(self.device)
        rgb, alpha = self.field.march(origin, directions, jitter)
        size = self.cameras.size
        terms = self.loss.terms(rgb.view(1, size, size, 3), alpha.view(1, size, size, 1), torch.tensor([view]))
        total = self.loss.total(terms).mean()
        (total + self.config.smooth * roughness(self.field.logits)).backward()
        self._advance()
        if self.iteration % RECORD_EVERY == 0 or self.iteration == self.config.iterations:
            self._record({name: float(value.detach().mean()) for name, value in terms.items()})
        if self.iteration % PRUNE_EVERY == 0:
            self._prune()

    def finished(self) -> VoxelField:
        """The field, detached."""
        self.field.logits = torch.cat([self.density, self.colour], 1).detach()
        return self.field

    def _advance(self) -> None:
        decay = 0.1 ** (self.iteration / self.config.iterations)
        for group in self.optimizer.param_groups:
            group["lr"] = decay * group["rate"]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.iteration += 1

    def _next_view(self) -> int:
        if not self.queue:
            self.queue = torch.randperm(len(self.cameras), generator=self.generator).tolist()
        return self.queue.pop()

    @torch.no_grad()
    def _prune(self) -> None:
        """Look up only where a voxel or a neighbour of it is not empty."""
        alpha = 1 - torch.exp(-self.field.step * F.softplus(self.density + self.field.shift))
        self.field.occupied = self.hull & (F.max_pool3d(alpha, 3, 1, 1)[0, 0] > EMPTY_ALPHA)

    @torch.no_grad()
    def _refine(self) -> None:
        side = self.config.resolution
        logits = torch.cat([self.density, self.colour], 1)
        self._optimise(F.interpolate(logits, size=(side,) * 3, mode="trilinear", align_corners=True))
        self.hull = silhouette_hull(self.loss.alpha, self.cameras, side)
        self._prune()

    def _record(self, losses: dict[str, float]) -> None:
        if not (torch.isfinite(self.density).all() and torch.isfinite(self.colour).all()):
            raise FloatingPointError(
                f"the field is not finite after {self.iteration} iterations; lower nerf.rate_density and rate_colour"
            )
        self.history.append({"iteration": self.iteration, "losses": losses})


def roughness(logits: Tensor) -> Tensor:
    """Mean squared step between neighbouring voxels of [1,4,R,R,R]."""
    return torch.stack([logits.diff(dim=axis).square().mean() for axis in (2, 3, 4)]).sum()


def _shrunk(images: Tensor, factor: int) -> Tensor:
    """[V,H,W,D] averaged over blocks of `factor` pixels."""
    return F.avg_pool2d(images.permute(0, 3, 1, 2), factor).permute(0, 2, 3, 1).contiguous() if factor > 1 else images
