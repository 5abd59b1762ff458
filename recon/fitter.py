"""Fit Gaussians to frames in pieces, by direct optimisation (paper 3.3, 3.4, A.1): `Fitter`."""

from __future__ import annotations

import time
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

from recon import mcmc
from recon.cameras import Cameras
from recon.config import FitConfig
from recon.densify import accumulate, densify, new_statistics
from recon.device import device_of
from recon.gaussians import Gaussians, init_ball
from recon.hull import init_hull
from recon.losses import FitLoss, network_of
from recon.pose import Pose
from recon.rasterize import rasterize
from recon.robust import ViewWeights
from recon.targets import MIN_SIZE, checked_targets, halved
from recon.window import Window, whole, window_of

STILL = 0.3
"""Share of the iterations before the cameras' corrections move: a shape that is hardly there pulls them anywhere."""


class Fitter:
    """A fit that runs in pieces, so that its targets can be exchanged on the way (3.4).

    Call `set_targets`, then `run` as often as wanted. Equal seeds give equal Gaussians.

    Args:
        cameras: one a target frame, in their order.
        config: see `FitConfig`.
        seed: of the initial points, the order of the views and the densification.
        pose: corrections of the cameras that are optimised along; `recon.trial.choose_pose` finds whether they pay.
    """

    def __init__(self, cameras: Cameras, config: FitConfig | None = None, seed: int = 0, pose: Pose | None = None):
        self.config = config or FitConfig()
        self.device = device_of(self.config.device)
        self.generator = torch.Generator().manual_seed(seed)
        self.size, self.iteration, self.pose = cameras.size, 0, pose
        self.viewmats, self.Ks = cameras.viewmats.to(self.device), cameras.Ks.to(self.device)
        self.params: dict[str, Parameter] = {}
        self.history: list[dict[str, Any]] = []
        self._sums: dict[str, Tensor] = {}
        self._steps, self._started = 0, 0.0
        self._queue = torch.empty(0, dtype=torch.long, device=self.device)
        self._losses: dict[int, FitLoss] = {}
        self._coarse = min(self.config.coarse_iterations, self.config.iterations // 3)
        self._weights = ViewWeights(len(cameras), self.config.robust, self.device)

    def set_targets(self, frames: np.ndarray, masks: np.ndarray | None = None) -> None:
        """Fit to these views from now on.

        Args:
            frames: uint8 [V,S,S,3|4], V and S as the cameras; RGBA on white, RGB on any background.
            masks: coverage uint8 [V,S,S]; the alpha channel if not given.

        Raises:
            ValueError: if shapes or dtypes do not match the cameras, the size is under 16 pixels, or no mask
                holds an object.
        """
        rgb, alpha = checked_targets(frames, masks, len(self.viewmats), self.size)
        rgb, alpha = rgb.to(self.device), alpha.to(self.device)
        if not self.params:
            self._start(rgb, alpha)
        network = network_of(self.config.loss, self.device) if self.config.loss.lpips else None
        self._window = self._window_of(alpha)
        rgb, alpha = self._window.crop(rgb), self._window.crop(alpha)
        self._losses = {1: FitLoss(self.config.loss, rgb, alpha, network, self._window.share)}
        if self._coarse > self.iteration and self.size >= 2 * MIN_SIZE and self.size % 2 == 0:
            self._losses[2] = FitLoss(self.config.loss, *halved(rgb, alpha), network, self._window.share)
        self._weights.reset()

    def _window_of(self, alpha: Tensor) -> Window:
        """What of the frames is rendered and compared; all of it on a GPU, where scenes of one size go in one call."""
        return window_of(alpha) if self.config.window and self.device.type == "cpu" else whole(self.size)

    def _start(self, rgb: Tensor, alpha: Tensor) -> None:
        """The first Gaussians and all that is kept of them."""
        config = self.config
        common = {"radius": config.init_radius, "sh_degree": config.sh_degree, "generator": self.generator}
        if config.init == "hull":
            start = init_hull(rgb, alpha, self.cameras, config.num_points, **common)
        else:
            start = init_ball(config.num_points, **common)
        values = {field.name: getattr(start, field.name).to(self.device) for field in fields(start)}
        self.params = {name: Parameter(value) for name, value in values.items() if value.numel()}
        self.optimizer = _optimizer(self.params, config)
        self.statistics = new_statistics(config.num_points, self.device)

    def run(self, iterations: int) -> list[dict[str, Any]]:
        """Take `iterations` optimiser steps; returns the records that this call adds to the history.

        Raises:
            ValueError: if there are no targets yet.
            FloatingPointError: if a parameter is no longer finite.
        """
        known = len(self.history)
        self.open()
        for _ in range(iterations):
            self._step()
        self.close()
        return self.history[known:]

    def open(self) -> None:
        """Begin steps; the clock of the next record starts."""
        if not self._losses:
            raise ValueError("the fit has no targets; call set_targets(frames, masks) before run")
        self._started = time.perf_counter()

    @property
    def gaussians(self) -> Gaussians:
        """The Gaussians as they are now, detached; there are some once the fit has targets."""
        values = {name: value.detach().clone() for name, value in self.params.items()}
        values.setdefault("shN", values["sh0"].new_zeros(len(values["means"]), 0, 3))
        return Gaussians(**values)

    @property
    def cameras(self) -> Cameras:
        """The turntable's cameras, at the elevation as it is corrected by now."""
        viewmats = self.viewmats if self.pose is None else self.pose.viewmats().detach()
        return Cameras(viewmats=viewmats, Ks=self.Ks, size=self.size)

    @torch.no_grad()
    def view_losses(self) -> Tensor:
        """The weighted loss [V] of every target view, at the targets' full size."""
        if not self._losses:
            raise ValueError("the fit has no targets; call set_targets(frames, masks) first")
        found = []
        for views in torch.arange(len(self.viewmats), device=self.device).split(4):
            rgb, alpha, _ = self._render(views, 1)
            rgb = rgb if self.pose is None else self.pose.expose(rgb, alpha, views)
            found.append(self._losses[1].total(self._losses[1].terms(rgb, alpha, views)))
        return torch.cat(found)

    def _step(self) -> None:
        rgb, alpha, meta = self._render(*self.begin_step())
        meta["means2d"].retain_grad()
        self.objective(rgb, alpha).backward()
        self.end_step(meta["means2d"].grad, meta.get("weights"))

    def begin_step(self) -> tuple[Tensor, int]:
        """The views [B] of the next step and by what their sides are divided; `objective`, its gradients and `end_step`
        follow."""
        coarse = self.iteration < self._coarse and 2 in self._losses
        reduction, count = (2, self.config.coarse_views) if coarse else (1, self.config.views)
        self._set_rates()
        self._views, self._size, self.loss = self._next_views(count), self.size // reduction, self._losses[reduction]
        return self._views, reduction

    def objective(self, rgb: Tensor, alpha: Tensor, features: list[Tensor] | None = None) -> Tensor:
        """What this step minimises, a scalar, from renders [B,S,S,3|1] of its views; `features` as `FitLoss.terms`."""
        if self.pose is not None:
            rgb = self.pose.expose(rgb, alpha, self._views)
        terms = self.loss.terms(rgb, alpha, self._views, features)
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, 0) + value.detach().mean()
        total = self.loss.total(terms)
        target = (self._weights.of(self._views, total.detach()) * total).mean()
        if self.config.densify.method == "mcmc":
            target = target + mcmc.cost(self.params, self.config.densify)
        return target

    def end_step(self, gradient: Tensor, weights: Tensor | None = None) -> None:
        """Follow the gradients; `gradient` [B,N,2] is that of the projected means, `weights` as of `accumulate`.
        Densify where it is due."""
        settings = self.config.densify
        pruned = settings.prune_hidden or (settings.prune_weight and weights is not None)
        if self.iteration < settings.until * self.config.iterations or pruned:
            accumulate(self.statistics, gradient, self._size, weights)
        self._advance()
        if self.iteration % self.config.densify.every == 0:
            self._record(self._densify() if self.iteration < self.config.iterations else {})

    def close(self) -> None:
        """Record the steps since the last record, if there are any."""
        if self._steps:
            self._record({})

    def _advance(self) -> None:
        """One step of every optimiser."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.pose is not None:
            self.pose.step(moving=self.iteration >= STILL * self.config.iterations)
        if self.config.densify.method == "mcmc":
            rate = next(group["lr"] for group in self.optimizer.param_groups if group["name"] == "means")
            mcmc.inject_noise(self.params, rate * self.config.densify.noise, self.generator)
        self.iteration += 1
        self._steps += 1

    def scene(self, views: Tensor, reduction: int) -> dict[str, Tensor]:
        """The tensors that `rasterize` takes, for the window of `views` [B], its sides divided by `reduction`."""
        p, Ks = self.params, self._window.intrinsics(self.Ks[views])
        Ks[:, :2] /= reduction
        return {
            "means": p["means"],
            "quats": p["quats"],
            "scales": p["scales"].exp(),
            "opacities": p["opacities"].sigmoid(),
            "colors": torch.cat([p["sh0"], p["shN"]], 1) if "shN" in p else p["sh0"],
            "viewmats": self.viewmats[views] if self.pose is None else self.pose.viewmats(views),
            "Ks": Ks,
            "backgrounds": torch.ones(len(views), 3, device=self.device),
        }

    def options(self, reduction: int) -> dict[str, Any]:
        """How `rasterize` renders the pictures of `scene`."""
        due = self.iteration % self.config.densify.every == 0
        config = self.config
        return {
            "width": self._window.width // reduction,
            "height": self._window.height // reduction,
            "sh_degree": config.sh_degree,
            "packed": config.packed,
            "check_values": due,
        }

    def _render(self, views: Tensor, reduction: int) -> tuple[Tensor, Tensor, dict[str, Any]]:
        return rasterize(**self.scene(views, reduction), **self.options(reduction))

    def _next_views(self, wanted: int) -> Tensor:
        wanted = min(wanted, len(self.viewmats))
        while len(self._queue) < wanted:
            turn = torch.randperm(len(self.viewmats), generator=self.generator).to(self.device)
            self._queue = torch.cat([self._queue, turn])
        views, self._queue = self._queue[:wanted], self._queue[wanted:]
        return views

    def _set_rates(self) -> None:
        decay = self.config.rates.final ** min(self.iteration / self.config.iterations, 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = decay * getattr(self.config.rates, group["name"])

    def _densify(self) -> dict[str, int]:
        grow = self.iteration < self.config.densify.until * self.config.iterations
        settings = self.config.densify
        if settings.method == "mcmc":
            counts = mcmc.populate(self.params, self.optimizer, settings, self.generator, grow)
        else:
            counts = densify(self.params, self.optimizer, self.statistics, settings, self.generator, grow)
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


def _optimizer(params: dict[str, Parameter], config: FitConfig) -> torch.optim.Adam:
    groups = [{"name": name, "params": [value], "lr": getattr(config.rates, name)} for name, value in params.items()]
    return torch.optim.Adam(groups, eps=1e-15, fused=True)
