"""Fit Gaussians to the frames of a turntable by direct optimisation (paper 3.3, A.1)."""

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
from recon.config import FitConfig
from recon.densify import accumulate, densify, new_statistics
from recon.gaussians import Gaussians, init_ball
from recon.losses import FitLoss
from recon.masks import masks_of
from recon.perceptual import load_perceptual
from recon.rasterize import rasterize

MIN_SIZE = 16


@dataclass(slots=True)
class FitResult:
    """What a fit gives: the Gaussians, and a record of losses, count and seconds for every round of densification."""

    gaussians: Gaussians
    history: list[dict[str, Any]]


class Fitter:
    """A fit that runs in pieces, so that its targets can be exchanged on the way (3.4).

    Call `set_targets`, then `run` as often as wanted. Equal seeds give equal Gaussians.

    Args:
        cameras: one a target frame, in their order.
        config: see `FitConfig`.
        seed: of the initial points, the order of the views and the densification.
    """

    def __init__(self, cameras: Cameras, config: FitConfig | None = None, seed: int = 0):
        self.config = config or FitConfig()
        self.device = _device(self.config.device)
        self.generator = torch.Generator().manual_seed(seed)
        self.cameras, self.size, self.iteration = cameras, cameras.size, 0
        self.viewmats, self.Ks = cameras.viewmats.to(self.device), cameras.Ks.to(self.device)
        start = init_ball(
            self.config.num_points,
            radius=self.config.init_radius,
            sh_degree=self.config.sh_degree,
            generator=self.generator,
        )
        fields = {name: getattr(start, name).to(self.device) for name in ("means", "quats", "scales", "opacities")}
        fields |= {"sh0": start.sh0.to(self.device), "shN": start.shN.to(self.device)}
        self.params = {name: Parameter(value) for name, value in fields.items() if value.numel()}
        self.optimizer = _optimizer(self.params, self.config)
        self.statistics = new_statistics(self.config.num_points, self.device)
        self.history: list[dict[str, Any]] = []
        self._sums: dict[str, Tensor] = {}
        self._steps, self._started = 0, 0.0
        self._queue: list[int] = []
        self._losses: dict[int, FitLoss] = {}

    def set_targets(self, frames: np.ndarray, masks: np.ndarray | None = None) -> None:
        """Fit to these views from now on.

        Args:
            frames: uint8 [V,S,S,3|4] on white, V and S as the cameras.
            masks: coverage uint8 [V,S,S]; the alpha channel if not given.

        Raises:
            ValueError: if shapes or dtypes do not match the cameras, the size is under 16 pixels, or no mask
                holds an object.
        """
        rgb, alpha = _checked(frames, masks, len(self.viewmats), self.size)
        rgb, alpha = rgb.to(self.device), alpha.to(self.device)
        network = load_perceptual(self.config.loss.perceptual, self.device) if self.config.loss.lpips else None
        self._losses = {1: FitLoss(self.config.loss, rgb, alpha, network)}
        if self.config.coarse_iterations > self.iteration and self.size >= 2 * MIN_SIZE and self.size % 2 == 0:
            half = F.avg_pool2d(torch.cat([rgb, alpha[..., None]], -1).permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
            self._losses[2] = FitLoss(self.config.loss, half[..., :3], half[..., 3], network)

    def run(self, iterations: int) -> list[dict[str, Any]]:
        """Take `iterations` optimiser steps; returns the records that this call adds to the history.

        Raises:
            ValueError: if there are no targets yet.
            FloatingPointError: if a parameter is no longer finite.
        """
        if not self._losses:
            raise ValueError("the fit has no targets; call set_targets(frames, masks) before run")
        known, self._started = len(self.history), time.perf_counter()
        for _ in range(iterations):
            self._step()
            if self.iteration % self.config.densify.every == 0:
                self._record(self._densify() if self.iteration < self.config.iterations else {})
        if self._steps:
            self._record({})
        return self.history[known:]

    @property
    def gaussians(self) -> Gaussians:
        """The Gaussians as they are now, detached."""
        fields = {name: value.detach().clone() for name, value in self.params.items()}
        fields.setdefault("shN", fields["sh0"].new_zeros(len(fields["means"]), 0, 3))
        return Gaussians(**fields)

    def _step(self) -> None:
        coarse = self.iteration < self.config.coarse_iterations and 2 in self._losses
        reduction = 2 if coarse else 1
        loss, views = self._losses[reduction], self._next_views()
        self._set_rates()
        rgb, alpha, meta = self._render(views, self.size // reduction)
        terms = loss.terms(rgb, alpha, views)
        loss.total(terms).backward()
        if self.iteration < self.config.densify.until * self.config.iterations or self.config.densify.prune_hidden:
            accumulate(self.statistics, meta["means2d"].grad, self.size // reduction)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.iteration += 1
        self._steps += 1
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, 0) + value.detach()

    def _render(self, views: Tensor, size: int) -> tuple[Tensor, Tensor, dict[str, Any]]:
        p, Ks = self.params, self.Ks[views].clone()
        Ks[:, :2] *= size / self.size
        rgb, alpha, meta = rasterize(
            p["means"],
            p["quats"],
            p["scales"].exp(),
            p["opacities"].sigmoid(),
            torch.cat([p["sh0"], p["shN"]], 1) if "shN" in p else p["sh0"],
            self.viewmats[views],
            Ks,
            size,
            size,
            sh_degree=self.config.sh_degree,
            backgrounds=torch.ones(len(views), 3, device=self.device),
        )
        meta["means2d"].retain_grad()
        return rgb, alpha, meta

    def _next_views(self) -> Tensor:
        count = len(self.viewmats)
        while len(self._queue) < min(self.config.views, count):
            self._queue += torch.randperm(count, generator=self.generator).tolist()
        views, self._queue = self._queue[: self.config.views], self._queue[self.config.views :]
        return torch.tensor(views, device=self.device)

    def _set_rates(self) -> None:
        decay = self.config.rates.final ** min(self.iteration / self.config.iterations, 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = decay * getattr(self.config.rates, group["name"])

    def _densify(self) -> dict[str, int]:
        grow = self.iteration < self.config.densify.until * self.config.iterations
        counts = densify(self.params, self.optimizer, self.statistics, self.config.densify, self.generator, grow)
        self.statistics = new_statistics(len(self.params["means"]), self.device)
        return counts

    def _record(self, counts: dict[str, int]) -> None:
        self._check_finite()
        now = time.perf_counter()
        self.history.append(
            {
                "iteration": self.iteration,
                "losses": {name: float(value) / self._steps for name, value in self._sums.items()},
                "num_gaussians": len(self.params["means"]),
                "seconds": now - self._started,
                "pruned": 0,
                "cloned": 0,
                "split": 0,
                **counts,
            }
        )
        self._sums, self._steps, self._started = {}, 0, now

    def _check_finite(self) -> None:
        bad = [name for name, value in self.params.items() if not torch.isfinite(value).all()]
        if bad:
            raise FloatingPointError(
                f"{', '.join(bad)} are not finite after {self.iteration} iterations; nothing was written. "
                "Lower fit.rates or the weights of fit.loss"
            )


def fit(
    frames: np.ndarray,
    masks: np.ndarray | None,
    cameras: Cameras,
    config: FitConfig | None = None,
    seed: int = 0,
) -> FitResult:
    """Fit Gaussians to frames uint8 [V,S,S,3|4]; arguments and errors as for `Fitter`."""
    fitter = Fitter(cameras, config, seed)
    fitter.set_targets(frames, masks)
    fitter.run(fitter.config.iterations)
    return FitResult(fitter.gaussians, fitter.history)


def _device(name: str) -> torch.device:
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def _optimizer(params: dict[str, Parameter], config: FitConfig) -> torch.optim.Adam:
    groups = [{"name": name, "params": [value], "lr": getattr(config.rates, name)} for name, value in params.items()]
    return torch.optim.Adam(groups, eps=1e-15, fused=True)


def _checked(frames: np.ndarray, masks: np.ndarray | None, views: int, size: int) -> tuple[Tensor, Tensor]:
    wanted = f"uint8 [{views},{size},{size},3|4]"
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] not in (3, 4):
        raise ValueError(f"frames are {frames.dtype} {list(frames.shape)}; the fit wants {wanted} with values 0..255")
    if frames.shape[:3] != (views, size, size):
        raise ValueError(f"frames are {list(frames.shape)} but the cameras want {wanted}; pad or resize to square")
    if size < MIN_SIZE:
        raise ValueError(f"frames are {size} pixels a side; the losses need at least {MIN_SIZE}, so render larger")
    masks = masks_of(frames) if masks is None else masks
    if masks.dtype != np.uint8 or masks.shape != frames.shape[:3]:
        raise ValueError(f"masks are {masks.dtype} {list(masks.shape)}; the fit wants uint8 {list(frames.shape[:3])}")
    if masks.max() < 128:
        raise ValueError(
            "no mask holds an object (no pixel covered by half); the frames are empty or the masker failed"
        )
    return torch.from_numpy(frames[..., :3].astype(np.float32) / 255), torch.from_numpy(masks.astype(np.float32) / 255)
