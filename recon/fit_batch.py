"""Fit the Gaussians of several assets in one optimisation: `fit_batch`, or `FitBatch` in pieces.

One small object leaves a GPU idle. There every step renders all assets by one call and shows all renders to the
perceptual network at once; losses, optimisers, densification and random numbers are each asset's own. Every step
differs from that of a fit by itself by rounding only, which grows over a whole fit as it does between two runs of one
fit there. A CPU gains nothing by it and takes the steps of one asset after the other, so that each comes out as from a
fit by itself to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recon.cameras import Cameras
from recon.config import FitConfig
from recon.fit import FitResult
from recon.fitter import Fitter
from recon.rasterize import rasterize
from recon.trial import choose_pose

FILLING = {"means": 0.0, "quats": 1.0, "scales": 1.0, "opacities": 0.0, "colors": 0.0}
"""What fills a scene up to the largest one's count: Gaussians of opacity 0, which no view shows."""


@dataclass(kw_only=True, slots=True)
class FitTarget:
    """What one asset is fitted to; see `recon.fit.fit`."""

    frames: np.ndarray
    masks: np.ndarray | None = None
    cameras: Cameras
    seed: int = 0


class FitBatch:
    """Fitters that step together. They share configuration, size of the frames and number of steps taken.

    Raises:
        ValueError: if they do not, or there are none.
    """

    def __init__(self, fitters: Sequence[Fitter]):
        kinds = {(fitter.size, fitter.iteration) for fitter in fitters}
        if len(kinds) != 1 or any(fitter.config != fitters[0].config for fitter in fitters):
            raise ValueError(
                f"fits of (size, steps taken) {sorted(kinds)} cannot run together; give one or more fitters of one "
                "size, one configuration and as many steps"
            )
        self.fitters = list(fitters)
        self.together = fitters[0].device.type == "cuda"

    def run(self, iterations: int) -> None:
        """Take `iterations` steps of every fitter; errors as `Fitter.run`."""
        if len(self.fitters) == 1 or not self.together:
            for fitter in self.fitters:
                fitter.run(iterations)
            return
        for fitter in self.fitters:
            fitter.open()
        for _ in range(iterations):
            self._step()
        for fitter in self.fitters:
            fitter.close()

    def _step(self) -> None:
        fitters = self.fitters
        plans = [fitter.begin_step() for fitter in fitters]
        rgb, alpha, meta = rasterize(
            **joined([fitter.scene(*plan) for fitter, plan in zip(fitters, plans, strict=True)]),
            **fitters[0].options(plans[0][1]),
        )
        meta["means2d"].retain_grad()
        layers = None
        if seen := fitters[0].loss.features_of(rgb.flatten(0, 1)):
            layers = [layer.unflatten(0, (len(fitters), -1)) for layer in seen]
        costs = [
            fitter.objective(rgb[number], alpha[number], layers and [layer[number] for layer in layers])
            for number, fitter in enumerate(fitters)
        ]
        torch.stack(costs).sum().backward()
        for fitter, gradient in zip(fitters, meta["means2d"].grad, strict=True):
            fitter.end_step(gradient[:, : len(fitter.params["means"])])


def fit_batch(targets: Sequence[FitTarget], config: FitConfig | None = None) -> list[FitResult]:
    """Fit Gaussians to each of `targets`, all of one size; results as of `recon.fit.fit`, in their order.

    Raises:
        ValueError: as `FitBatch` and `Fitter.set_targets`.
    """
    config, fitters = config or FitConfig(), []
    for target in targets:
        pose = choose_pose(target.frames, target.masks, target.cameras, config, target.seed)
        fitters.append(Fitter(target.cameras, config, target.seed, pose))
        fitters[-1].set_targets(target.frames, target.masks)
    FitBatch(fitters).run(config.iterations)
    return [FitResult(fitter.gaussians, fitter.history, fitter.cameras) for fitter in fitters]


def joined(scenes: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Scenes as `rasterize` takes them, [...], to one of several, [B,...]; smaller ones are filled up."""
    count = max(len(scene["means"]) for scene in scenes)
    return {name: torch.stack([_filled(scene[name], name, count) for scene in scenes]) for name in scenes[0]}


def _filled(values: Tensor, name: str, count: int) -> Tensor:
    """Rows of Gaussians up to `count`; what does not belong to Gaussians as it is."""
    if name not in FILLING or len(values) == count:
        return values
    return F.pad(values, (0, 0) * (values.dim() - 1) + (0, count - len(values)), value=FILLING[name])
