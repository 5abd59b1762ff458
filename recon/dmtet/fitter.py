"""Optimise a mesh by the losses of the Gaussians, on the same frames, in pieces (paper A.7): `MeshFitter`."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import Tensor

from recon.cameras import Cameras
from recon.config import LossConfig, MeshConfig
from recon.device import device_of
from recon.dmtet.march import march
from recon.dmtet.pictures import picture
from recon.dmtet.roughness import roughness
from recon.dmtet.start import Start
from recon.losses import FitLoss, network_of
from recon.targets import checked_targets

RATES = {"distances": 1e-3, "offsets": 1e-2, "colours": 1e-2}
"""Adam's step sizes: of signed distances (world units), offsets (before the tanh) and colours."""
FINAL = 0.1
"""The rates fall exponentially to this share at the last iteration."""
REACH = 0.45
"""A vertex of the grid moves by less than this share of a cube's side along each axis."""
SMOOTHNESS = 1.0
"""Weight of the mesh's roughness in squared cube sides: noise of the pictures stays out of the surface."""


class MeshFitter:
    """A tetrahedral grid whose signed distances, offsets and colours are optimised; its targets can be exchanged.

    The mesh lives on the CPU, where it is drawn; the losses are computed on `device`.

    Args:
        start: the grid and its first values.
        cameras: one a target frame, in their order.
        seed: of the order of the views.
        device: "auto", "cpu" or "cuda".
    """

    def __init__(
        self, start: Start, cameras: Cameras, config: MeshConfig, loss: LossConfig, seed: int = 0, device: str = "auto"
    ):
        self.grid, self.config, self.loss_config = start.grid, config, loss
        self.cameras = Cameras(viewmats=cameras.viewmats.cpu(), Ks=cameras.Ks.cpu(), size=cameras.size)
        self.device, self.generator = device_of(device), torch.Generator().manual_seed(seed)
        self.places, self.free = torch.from_numpy(start.grid.places), torch.from_numpy(start.near)
        self.params = {
            "distances": torch.from_numpy(start.distances).clone().requires_grad_(),
            "offsets": torch.zeros_like(self.places).requires_grad_(),
            "colours": torch.from_numpy(start.colours).clone().requires_grad_(),
        }
        groups = [{"name": name, "params": [value], "lr": RATES[name]} for name, value in self.params.items()]
        self.optimizer = torch.optim.Adam(groups, eps=1e-12, fused=True)
        self.iteration, self.history = 0, []
        self._queue: list[int] = []

    def set_targets(self, frames: np.ndarray, masks: np.ndarray | None = None) -> None:
        """Fit to these views from now on; arguments and errors as of `recon.fitter.Fitter.set_targets`."""
        rgb, alpha = checked_targets(frames, masks, len(self.cameras), self.cameras.size)
        network = network_of(self.loss_config, self.device) if self.loss_config.lpips else None
        self.loss = FitLoss(self.loss_config, rgb.to(self.device), alpha.to(self.device), network)

    def run(self, iterations: int) -> None:
        """Take `iterations` optimiser steps, one view each, and record them.

        Raises:
            FloatingPointError: if a parameter is no longer finite.
        """
        started, sums = time.perf_counter(), {}
        for _ in range(iterations):
            for name, value in self._step().items():
                sums[name] = sums.get(name, 0.0) + value / iterations
        bad = [name for name, value in self.params.items() if not torch.isfinite(value).all()]
        if bad:
            raise FloatingPointError(f"{', '.join(bad)} of the mesh are not finite after {self.iteration} iterations")
        self.history.append(
            {"iteration": self.iteration, "losses": sums, "seconds": time.perf_counter() - started}
        )  # fmt: skip

    def surface(self) -> tuple[Tensor, Tensor, Tensor]:
        """Vertices [V,3], faces int32 [F,3] and colours [V,3] of the mesh as it is now, with gradients."""
        deformed = self.places + REACH * self.grid.step * self.params["offsets"].tanh()
        return march(self.grid, self.params["distances"], deformed, self.params["colours"])

    @torch.no_grad()
    def pictures(self, cameras: Cameras) -> np.ndarray:
        """The mesh as it is now, uint8 [C,S,S,4]: RGB over white, and coverage."""
        surface, size = self.surface(), cameras.size
        found = [picture(*surface, viewmat, K, size) for viewmat, K in zip(cameras.viewmats, cameras.Ks, strict=True)]
        return (torch.stack([torch.cat(one, -1) for one in found]) * 255).round().byte().numpy()

    def _step(self) -> dict[str, float]:
        for group in self.optimizer.param_groups:
            group["lr"] = RATES[group["name"]] * FINAL ** (self.iteration / self.config.iterations)
        if not self._queue:
            self._queue = torch.randperm(len(self.cameras), generator=self.generator).tolist()
        view = self._queue.pop()
        vertices, faces, colours = self.surface()
        if not len(faces):
            raise ValueError(f"the mesh has vanished after {self.iteration} iterations; its frames show no one object")
        viewmat, K = self.cameras.viewmats[view], self.cameras.Ks[view]
        drawn = picture(vertices, faces, colours, viewmat, K, self.cameras.size)
        rgb, alpha = (image[None].to(self.device) for image in drawn)
        terms = self.loss.terms(rgb, alpha, torch.tensor([view], device=self.device))
        rough = roughness(vertices, faces) / self.grid.step**2
        (self.loss.total(terms).mean().cpu() + SMOOTHNESS * rough).backward()
        for value in (self.params["distances"], self.params["offsets"]):
            value.grad[~self.free] = 0  # pyright: ignore[reportOptionalSubscript]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.iteration += 1
        return {name: float(value.detach().mean()) for name, value in terms.items()}
