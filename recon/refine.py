"""Fit and re-denoise in turns (paper 3.4, A.1): fit 500 | refine | fit 500 | refine | fit 200."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch

from recon.cameras import Cameras, OrbitConfig, turntable
from recon.config import FitConfig, RefineConfig
from recon.fit import Fitter
from recon.gaussians import Gaussians, render
from recon.masks import Masker, masks_of
from recon.trial import choose_pose


class Refiner(Protocol):
    """A generator that noises a turntable part of the way and denoises it again."""

    def refine(self, frames: np.ndarray, image: np.ndarray, prompt: str, seed: int) -> np.ndarray:
        """Frames uint8 [V,H,W,3|4] on white to refined frames of the same shape; `image` is the reference view."""
        ...


def reconstruct(
    frames: np.ndarray,
    masks: np.ndarray | None,
    elevation: float,
    image: np.ndarray | None = None,
    prompt: str = "",
    refiner: Refiner | None = None,
    masker: Masker | None = None,
    fit_config: FitConfig | None = None,
    refine_config: RefineConfig | None = None,
    orbit: OrbitConfig | None = None,
    seed: int = 0,
) -> tuple[Gaussians, list[dict[str, Any]]]:
    """Turn a generated turntable into Gaussians.

    Args:
        frames: uint8 [V,S,S,3|4] on white, at uniform azimuths.
        masks: coverage uint8 [V,S,S]; the frames' alpha or `masker` if not given.
        elevation: of the cameras, radians.
        image: reference view for the refiner; the first frame if not given.
        prompt: text for the refiner.
        refiner: None for a fit without refinement.
        masker: masks of refined frames that have no alpha channel.
        refine_config: rounds at or after the last fit iteration are left out.
        orbit: the cameras' geometry; its number of views is that of `frames`.
        seed: of the fit; round r refines with seed + r + 1.

    Returns:
        The Gaussians, and one record a stage: ``stage`` ("fit" or "refine"), ``iteration`` at its end,
        ``losses`` (unweighted terms; empty for "refine"), ``num_gaussians``, ``seconds``, ``elevation``
        (radians, as corrected by then), and for "refine" the new ``targets`` uint8 [V,S,S,3|4].

    Raises:
        ValueError: for unusable frames or masks, or a refiner that changes their shape.
    """
    fit_config, refine_config = fit_config or FitConfig(), refine_config or RefineConfig()
    masks = masks_of(frames, masker) if masks is None else masks
    orbit = replace(orbit or OrbitConfig(), num_views=len(frames))
    cameras = turntable(elevation, frames.shape[2], orbit)
    fitter = Fitter(cameras, fit_config, seed, choose_pose(frames, masks, cameras, fit_config, seed))
    fitter.set_targets(frames, masks)
    reference, current = frames[0] if image is None else image, (frames, masks)
    history: list[dict[str, Any]] = []
    for number, at in enumerate(refine_config.rounds_at, start=1):
        if refiner is None or at >= fit_config.iterations:
            break
        history.append(_fit_until(fitter, at))
        started = time.perf_counter()
        views = views_of(fitter.gaussians, fitter.cameras, frames.shape[-1])
        refined = refiner.refine(views, reference, prompt, seed + number)
        current = mixed_targets(current, refined, masker, refine_config.mix)
        fitter.set_targets(*current)
        history.append(_record("refine", fitter, {}, started) | {"targets": current[0]})
    history.append(_fit_until(fitter, fit_config.iterations))
    for part in history:
        part["elevation"] += elevation
    return fitter.gaussians, history


def views_of(gaussians: Gaussians, cameras: Cameras, channels: int) -> np.ndarray:
    """Renders as uint8 [V,S,S,channels]: RGB over white, then opacity if `channels` is 4."""
    rgb, alpha = render(gaussians, cameras)
    stacked = torch.cat([rgb, alpha], -1)[..., :channels].clamp(0, 1)
    return (stacked * 255).round().byte().cpu().numpy()


def mixed_targets(
    before: tuple[np.ndarray, np.ndarray], refined: np.ndarray, masker: Masker | None, mix: float
) -> tuple[np.ndarray, np.ndarray]:
    """The next targets, frames and masks, from those `before` and `refined` frames uint8 [V,S,S,3|4].

    Raises:
        ValueError: if the refined frames have another shape.
    """
    frames, masks = before
    if refined.shape != frames.shape:
        raise ValueError(
            f"the refiner returned frames {list(refined.shape)} for {list(frames.shape)}; it must keep the shape"
        )
    pairs = ((refined, frames), (masks_of(refined, masker), masks))
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
