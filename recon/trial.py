"""Try two short fits, with corrected cameras and without, and keep the lower loss: `choose_pose`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from recon.cameras import Cameras
from recon.config import FitConfig, PoseConfig
from recon.fitter import Fitter
from recon.pose import Pose
from recon.targets import MIN_SIZE

NUM_POINTS, MAX_GAUSSIANS = 2000, 4000
MARGIN = 0.05
"""The loss must fall by this share at least, for a fit with more freedom is always a little lower."""


def choose_pose(
    frames: np.ndarray, masks: np.ndarray | None, cameras: Cameras, config: FitConfig, seed: int
) -> Pose | None:
    """Corrections to go on with, or None where none are wanted or they do not lower the loss; errors as `Fitter`.

    Args:
        frames: uint8 [V,S,S,3|4]; masks: uint8 [V,S,S] or None; cameras: as estimated.
    """
    if not config.pose.any:
        return None
    if cameras.size >= 2 * MIN_SIZE and cameras.size % 2 == 0:
        frames, masks, cameras = _half(frames, masks, cameras)
    settings = replace(
        config, iterations=config.pose.trial_iterations, coarse_iterations=0, pose=PoseConfig(),
        num_points=min(config.num_points, NUM_POINTS),
        densify=replace(config.densify, max_gaussians=min(config.densify.max_gaussians, MAX_GAUSSIANS)),
    )  # fmt: skip
    losses, pose = [], None
    for wanted in (False, True):
        fitter = Fitter(cameras, settings, seed)
        pose = fitter.pose = Pose(fitter.viewmats, config.pose) if wanted else None
        fitter.set_targets(frames, masks)
        fitter.run(settings.iterations)
        losses.append(float(fitter.view_losses().mean()))
    return pose if losses[1] < (1 - MARGIN) * losses[0] else None


def _half(frames: np.ndarray, masks: np.ndarray | None, cameras: Cameras):
    """Frames, masks and cameras at half the size."""
    Ks = cameras.Ks.clone()
    Ks[:, :2] /= 2
    masks = None if masks is None else _mean_of_four(masks)
    return _mean_of_four(frames), masks, Cameras(viewmats=cameras.viewmats, Ks=Ks, size=cameras.size // 2)


def _mean_of_four(pixels: np.ndarray) -> np.ndarray:
    """uint8 [V,S,S,...] at half the size."""
    wide = pixels.astype(np.uint16)
    total = wide[:, ::2, ::2] + wide[:, 1::2, ::2] + wide[:, ::2, 1::2] + wide[:, 1::2, 1::2]
    return ((total + 2) // 4).astype(np.uint8)
