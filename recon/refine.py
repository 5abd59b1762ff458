"""Fit and re-denoise in turns (paper 3.4, A.1), fit 500 | refine | fit 500 | refine | fit 200: `reconstruct`.

Example:
    given = Turntable(frames=frames, elevation=0.3, image=image, prompt="a red chair")  # frames uint8 [V,S,S,3|4]
    gaussians, records = reconstruct(given, LoopConfig(), refiner=video_model, masker=masker)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch

from recon.cameras import Cameras, around, azimuths
from recon.config import FitConfig, OrbitConfig, RefineConfig
from recon.fit_batch import FitBatch
from recon.fitter import Fitter
from recon.gaussians import Gaussians, render
from recon.masks import Masker, masks_of
from recon.over_white import over_white
from recon.trial import choose_pose


class Refiner(Protocol):
    """A generator that noises a turntable part of the way and denoises it again."""

    def refine(self, frames: np.ndarray, image: np.ndarray, prompt: str, seed: int) -> np.ndarray:
        """All frames uint8 [V,H,W,3|4] on white to refined ones of the same shape; `image` is the reference view.

        RGBA frames must come back on white; opaque ones may have any background, which their masks take away.
        """
        ...


@dataclass(kw_only=True, slots=True)
class Turntable:
    """A generated turntable: what a reconstruction starts from."""

    frames: np.ndarray
    """uint8 [V,S,S,3|4]; RGBA on white, RGB on any background."""
    elevation: float
    """Of the cameras, radians."""
    masks: np.ndarray | None = None
    """Coverage uint8 [V,S,S]; if not given, the frames' alpha or the masker's."""
    image: np.ndarray | None = None
    """Reference view for the refiner, uint8 [H,W,3|4]; if not given, the first frame."""
    prompt: str = ""
    """Text for the refiner."""
    azimuths: Sequence[float] | None = None
    """Of the frames, radians as in `recon.cameras`; if not given, one even turn from 0."""
    chosen: Sequence[int] | None = None
    """Frames that the fit uses; if not given, all. The refiner works on all of them in any case."""
    orbit: OrbitConfig = field(default_factory=OrbitConfig)
    """Field of view and distance of the cameras; the number of views is that of the frames."""

    def cameras(self, correction: float = 0.0) -> Cameras:
        """Of all frames, at the elevation plus `correction` in radians."""
        count, size = len(self.frames), self.frames.shape[2]
        angles = azimuths(replace(self.orbit, num_views=count)) if self.azimuths is None else self.azimuths
        if len(angles) != count:
            raise ValueError(f"the turntable has {count} frames and {len(angles)} azimuths; give one a frame")
        return around(angles, self.elevation + correction, size, self.orbit)


@dataclass(kw_only=True, slots=True)
class LoopConfig:
    """Fit and re-denoise in turns: the settings of the fit and of the rounds."""

    fit: FitConfig = field(default_factory=FitConfig)
    refine: RefineConfig = field(default_factory=RefineConfig)
    """Rounds at or after the last fit iteration are left out."""


def reconstruct(
    given: Turntable,
    config: LoopConfig | None = None,
    refiner: Refiner | None = None,
    masker: Masker | None = None,
    seed: int = 0,
) -> tuple[Gaussians, list[dict[str, Any]]]:
    """Turn a generated turntable into Gaussians.

    Args:
        refiner: None for a fit without refinement.
        masker: masks of frames that have no alpha channel.
        seed: of the fit; round r refines with seed + r.

    Returns:
        The Gaussians, and one record a stage: ``stage`` ("fit" or "refine"), ``iteration`` at its end,
        ``losses`` (unweighted terms; empty for "refine"), ``num_gaussians``, ``seconds``, ``elevation``
        (radians, as corrected by then), ``targets`` uint8 [V,S,S,3|4] of the chosen frames, their ``masks`` [V,S,S] and
        ``cameras`` by then.

    Raises:
        ValueError: for unusable frames or masks, or a refiner that changes their shape.
    """
    return reconstruct_batch([given], config, None if refiner is None else [refiner], masker, [seed])[0]


def reconstruct_batch(
    given: Sequence[Turntable],
    config: LoopConfig | None = None,
    refiners: Sequence[Refiner] | None = None,
    masker: Masker | None = None,
    seeds: Sequence[int] = (),
) -> list[tuple[Gaussians, list[dict[str, Any]]]]:
    """`reconstruct` of several turntables of one size, whose fits run together (`recon.fit_batch`).

    Args:
        refiners: one a turntable, or None.
        seeds: one a turntable; as many zeros if there are none.

    Returns:
        What `reconstruct` returns, in order; the ``seconds`` of a fit are an asset's share.
    """
    config = config or LoopConfig()
    assets = [_Asset(one, config, masker, seed) for one, seed in zip(given, seeds or [0] * len(given), strict=True)]
    batch = FitBatch([asset.fitter for asset in assets])
    for number, at in enumerate(config.refine.within(config.fit.iterations), start=1):
        if refiners is None:
            break
        _fit_until(batch, assets, at)
        for asset, refiner in zip(assets, refiners, strict=True):
            asset.refine(refiner, number)
    _fit_until(batch, assets, config.fit.iterations)
    return [(asset.fitter.gaussians, asset.history) for asset in assets]


class _Asset:
    """One turntable's fit, its targets by now and its history."""

    def __init__(self, given: Turntable, config: LoopConfig, masker: Masker | None, seed: int):
        masks = masks_of(given.frames, masker) if given.masks is None else given.masks
        self.given, self.config, self.masker, self.seed = given, config, masker, seed
        self.chosen = list(range(len(given.frames)) if given.chosen is None else given.chosen)
        frames, masks = over_white(given.frames[self.chosen], masks[self.chosen]), masks[self.chosen]
        self.targets = frames, masks
        cameras = given.cameras()[self.chosen]
        pose = choose_pose(frames, masks, cameras, config.fit, seed)
        self.fitter, self.history = Fitter(cameras, config.fit, seed, pose), []
        self.fitter.set_targets(frames, masks)
        self.image = frames[0] if given.image is None else given.image

    def refine(self, refiner: Refiner, number: int) -> None:
        """Round `number`: re-denoise the renders and fit to them from now on."""
        started, cameras = time.perf_counter(), self.given.cameras(self.correction)
        views = views_of(self.fitter.gaussians, cameras, self.given.frames.shape[-1])
        refined = refiner.refine(views, self.image, self.given.prompt, self.seed + number)
        if refined.shape != views.shape:
            raise ValueError(f"the refiner returned frames {list(refined.shape)} for {list(views.shape)}; "
                             "it must keep the shape")  # fmt: skip
        self.targets = mixed_targets(self.targets, refined[self.chosen], self.masker, self.config.refine.mix)
        self.fitter.set_targets(*self.targets)
        self.record("refine", {}, time.perf_counter() - started)

    @property
    def correction(self) -> float:
        """What the fit adds to the given elevation by now, radians."""
        return self.fitter.pose.elevation if self.fitter.pose else 0.0

    def record(self, stage: str, losses: dict[str, float], seconds: float) -> None:
        """Add a stage to the history."""
        fitter = self.fitter
        self.history.append(
            {
                "stage": stage,
                "iteration": fitter.iteration,
                "losses": losses,
                "num_gaussians": len(fitter.params["means"]),
                "elevation": self.given.elevation + self.correction,
                "seconds": seconds,
                "targets": self.targets[0],
                "masks": self.targets[1],
                "cameras": fitter.cameras,
            }
        )


def _fit_until(batch: FitBatch, assets: list[_Asset], iteration: int) -> None:
    started, known = time.perf_counter(), [len(asset.fitter.history) for asset in assets]
    batch.run(iteration - assets[0].fitter.iteration)
    seconds = (time.perf_counter() - started) / len(assets)
    for asset, count in zip(assets, known, strict=True):
        records = asset.fitter.history[count:]
        asset.record("fit", records[-1]["losses"] if records else {}, seconds)


def views_of(gaussians: Gaussians, cameras: Cameras, channels: int) -> np.ndarray:
    """Renders as uint8 [V,S,S,channels]: RGB over white, then opacity if `channels` is 4."""
    rgb, alpha = render(gaussians, cameras)
    stacked = torch.cat([rgb, alpha], -1)[..., :channels].clamp(0, 1)
    return (stacked * 255).round().byte().cpu().numpy()


def mixed_targets(
    before: tuple[np.ndarray, np.ndarray], refined: np.ndarray, masker: Masker | None, mix: float
) -> tuple[np.ndarray, np.ndarray]:
    """The next targets, frames on white and masks, from those `before` and as many `refined` uint8 [V,S,S,3|4]."""
    frames, masks = before
    found = masks_of(refined, masker)
    pairs = ((over_white(refined, found), frames), (found, masks))
    mixed = [np.rint(mix * new + (1 - mix) * old.astype(np.float32)).astype(np.uint8) for new, old in pairs]
    return mixed[0], mixed[1]


def redenoiser(
    refiner: Refiner, masker: Masker | None, given: Turntable, fitted: Mapping[str, Any], mix: float, seed: int
) -> Callable[[Callable[[Cameras], np.ndarray], int], tuple[np.ndarray, np.ndarray]]:
    """What makes the next targets, frames on white and masks, of something that is drawn by cameras, and of a round.

    Args:
        fitted: the last record of `reconstruct`. seed: round r refines with seed + r.
    """
    chosen = list(range(len(given.frames)) if given.chosen is None else given.chosen)
    image = given.frames[chosen[0]] if given.image is None else given.image
    known, cameras = [(fitted["targets"], fitted["masks"])], given.cameras(fitted["elevation"] - given.elevation)

    def next_targets(draw: Callable[[Cameras], np.ndarray], number: int) -> tuple[np.ndarray, np.ndarray]:
        views = draw(cameras)[..., : given.frames.shape[-1]]
        refined = refiner.refine(views, image, given.prompt, seed + number)
        known[0] = mixed_targets(known[0], refined[chosen], masker, mix)
        return known[0]

    return next_targets
