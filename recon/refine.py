"""Fit and re-denoise in turns (paper 3.4, A.1): fit 500 | refine | fit 500 | refine | fit 200."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch

from recon.cameras import Cameras, turntable
from recon.config import FitConfig, OrbitConfig, RefineConfig
from recon.fitter import Fitter
from recon.gaussians import Gaussians, render
from recon.masks import Masker, masks_of
from recon.over_white import over_white
from recon.trial import choose_pose


class Refiner(Protocol):
    """A generator that noises a turntable part of the way and denoises it again."""

    def refine(self, frames: np.ndarray, image: np.ndarray, prompt: str, seed: int) -> np.ndarray:
        """Frames uint8 [V,H,W,3|4] on white to refined frames of the same shape; `image` is the reference view.

        RGBA frames must come back on white; opaque ones may have any background, which their masks take away.
        """
        ...


@dataclass(kw_only=True, slots=True)
class Turntable:
    """A generated turntable: what a reconstruction starts from."""

    frames: np.ndarray
    """uint8 [V,S,S,3|4] at uniform azimuths; RGBA on white, RGB on any background."""
    elevation: float
    """Of the cameras, radians."""
    masks: np.ndarray | None = None
    """Coverage uint8 [V,S,S]; if not given, the frames' alpha or the masker's."""
    image: np.ndarray | None = None
    """Reference view for the refiner, uint8 [H,W,3|4]; if not given, the first frame."""
    prompt: str = ""
    """Text for the refiner."""


@dataclass(kw_only=True, slots=True)
class LoopConfig:
    """Fit and re-denoise in turns: the settings of the fit, of the rounds and of the cameras."""

    fit: FitConfig = field(default_factory=FitConfig)
    refine: RefineConfig = field(default_factory=RefineConfig)
    """Rounds at or after the last fit iteration are left out."""
    orbit: OrbitConfig = field(default_factory=OrbitConfig)
    """Geometry of the cameras; the number of views is that of the frames."""


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
        (radians, as corrected by then), and for "refine" the new ``targets`` uint8 [V,S,S,3|4].

    Raises:
        ValueError: for unusable frames or masks, or a refiner that changes their shape.
    """
    config = config or LoopConfig()
    masks = masks_of(given.frames, masker) if given.masks is None else given.masks
    frames = over_white(given.frames, masks)
    current = (frames, masks)
    fitter = _fitter(*current, given.elevation, config, seed)
    history: list[dict[str, Any]] = []
    for number, at in enumerate(config.refine.within(config.fit.iterations), start=1):
        if refiner is None:
            break
        history.append(_fit_until(fitter, at))
        started = time.perf_counter()
        views = views_of(fitter.gaussians, fitter.cameras, frames.shape[-1])
        image = frames[0] if given.image is None else given.image
        refined = refiner.refine(views, image, given.prompt, seed + number)
        current = mixed_targets(current, refined, masker, config.refine.mix)
        fitter.set_targets(*current)
        history.append(_record("refine", fitter, {}, started) | {"targets": current[0]})
    history.append(_fit_until(fitter, config.fit.iterations))
    for part in history:
        part["elevation"] += given.elevation
    return fitter.gaussians, history


def _fitter(frames: np.ndarray, masks: np.ndarray, elevation: float, config: LoopConfig, seed: int) -> Fitter:
    cameras = turntable(elevation, frames.shape[2], replace(config.orbit, num_views=len(frames)))
    fitter = Fitter(cameras, config.fit, seed, choose_pose(frames, masks, cameras, config.fit, seed))
    fitter.set_targets(frames, masks)
    return fitter


def views_of(gaussians: Gaussians, cameras: Cameras, channels: int) -> np.ndarray:
    """Renders as uint8 [V,S,S,channels]: RGB over white, then opacity if `channels` is 4."""
    rgb, alpha = render(gaussians, cameras)
    stacked = torch.cat([rgb, alpha], -1)[..., :channels].clamp(0, 1)
    return (stacked * 255).round().byte().cpu().numpy()


def mixed_targets(
    before: tuple[np.ndarray, np.ndarray], refined: np.ndarray, masker: Masker | None, mix: float
) -> tuple[np.ndarray, np.ndarray]:
    """The next targets, frames on white and masks, from those `before` and `refined` frames uint8 [V,S,S,3|4].

    Raises:
        ValueError: if the refined frames have another shape.
    """
    frames, masks = before
    if refined.shape != frames.shape:
        raise ValueError(
            f"the refiner returned frames {list(refined.shape)} for {list(frames.shape)}; it must keep the shape"
        )
    found = masks_of(refined, masker)
    pairs = ((over_white(refined, found), frames), (found, masks))
    mixed = [np.rint(mix * new + (1 - mix) * old.astype(np.float32)).astype(np.uint8) for new, old in pairs]
    return mixed[0], mixed[1]


def _fit_until(fitter: Fitter, iteration: int) -> dict[str, Any]:
    started = time.perf_counter()
    records = fitter.run(iteration - fitter.iteration)
    return _record("fit", fitter, records[-1]["losses"] if records else {}, started)


def _record(stage: str, fitter: Fitter, losses: dict[str, float], started: float) -> dict[str, Any]:
    return {
        "stage": stage,
        "iteration": fitter.iteration,
        "losses": losses,
        "num_gaussians": len(fitter.params["means"]),
        "elevation": fitter.pose.elevation if fitter.pose else 0.0,
        "seconds": time.perf_counter() - started,
    }
