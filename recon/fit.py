"""Fit Gaussians to the frames of a turntable by direct optimisation (paper 3.3, A.1): `fit`.

Example:
    cameras = turntable(elevation=0.3, size=128, config=OrbitConfig(num_views=16))
    result = fit(frames, masks, cameras, FitConfig(iterations=600))  # frames uint8 [16,128,128,3], masks [16,128,128]
    write_ply("asset.ply", result.gaussians)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from recon.cameras import Cameras
from recon.config import FitConfig
from recon.fitter import Fitter
from recon.gaussians import Gaussians
from recon.trial import choose_pose


@dataclass(slots=True)
class FitResult:
    """What a fit gives: the Gaussians, a record of losses, count and seconds for every round of densification, and
    the turntable's cameras, whose elevation may have been corrected."""

    gaussians: Gaussians
    history: list[dict[str, Any]]
    cameras: Cameras


def fit(
    frames: np.ndarray,
    masks: np.ndarray | None,
    cameras: Cameras,
    config: FitConfig | None = None,
    seed: int = 0,
) -> FitResult:
    """Fit Gaussians to frames uint8 [V,S,S,3|4]; arguments and errors as for `Fitter`."""
    config = config or FitConfig()
    fitter = Fitter(cameras, config, seed, choose_pose(frames, masks, cameras, config, seed))
    fitter.set_targets(frames, masks)
    fitter.run(config.iterations)
    return FitResult(fitter.gaussians, fitter.history, fitter.cameras)
