"""Judge whether a turntable is worth a fit, by the risk of an unusable asset (Figure 8): `measure`.

A short fit of few Gaussians at 64 pixels cannot follow views that contradict each other. What it leaves, how the
frames change from one to the next, and how far their outlines are from those of one object, go into a logistic model,
calibrated on generated failures (`benchmarks.yield_gate`): deforming objects, frozen, dropped and shuffled frames,
colour flicker.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from recon.cameras import OrbitConfig, around
from recon.coherence import CANDIDATES, even_turn, incoherence
from recon.config import DensifyConfig, FitConfig
from recon.fit import fit
from recon.gaussians import render
from recon.loss_weights import LossConfig
from recon.perceptual import load_perceptual
from recon.risk import RiskModel

WEIGHTS = Path(__file__).parent / "weights" / "yield"
MIN_FRAMES = 4
PROBE_SIZE = 64
PROBE = FitConfig(
    iterations=250,
    num_points=1500,
    loss=LossConfig(lpips=0.0, ms_ssim=0.2, mask=1.0, rgb=1.0),
    densify=DensifyConfig(max_gaussians=2500, prune_weight=0.0),
    device="cpu",
)
"""No LPIPS, which costs most: the residual is measured with it afterwards. The gate is calibrated on such fits."""

FEATURES = {
    "colour_residual": "views disagree in colour",
    "worst_colour_residual": "single views disagree in colour",
    "perceptual_residual": "views disagree in detail",
    "worst_perceptual_residual": "single views disagree in detail",
    "shape_residual": "the silhouettes fit no one shape",
    "worst_shape_residual": "single silhouettes fit no one shape",
    "slowest_step": "frames repeat",
    "fastest_step": "the turn jumps",
    "colour_flicker": "the colours flicker",
    "area_flicker": "the size flickers",
    "incoherence": "the outlines belong to no one object",
}
"""What is measured, and how it is said in an asset's row."""


def load_yield_model(folder: Path = WEIGHTS) -> RiskModel:
    """The model in `folder`; a ValueError says if there is none."""
    return RiskModel.load(folder)


def measure(
    frames: np.ndarray, masks: np.ndarray, elevation: float, orbit: OrbitConfig | None = None,
    azimuths: Sequence[float] | None = None,
) -> dict:  # fmt: skip
    """The `FEATURES` of a turntable, each >= 0, by a short fit on the CPU (a few seconds).

    Args:
        frames: uint8 [V,S,S,3|4] on white, V >= 4; masks: uint8 [V,S,S].
        elevation: radians.
        azimuths: of the frames, radians; one even turn if there are none.

    Raises:
        ValueError: for fewer than four frames, or what a fit refuses.
    """
    if len(frames) < MIN_FRAMES:
        raise ValueError(f"a turntable of {len(frames)} frames cannot be judged; give at least {MIN_FRAMES}")
    shrunk = small(np.concatenate([frames[..., :3], masks[..., None]], -1))
    settings, angles = orbit or OrbitConfig(), even_turn(len(shrunk)) if azimuths is None else azimuths
    cameras = around(torch.tensor(angles), elevation, shrunk.shape[1], settings)
    with torch.no_grad():
        result = fit_probe(shrunk, cameras)
    outlines = {"incoherence": float(incoherence(shrunk[..., 3], CANDIDATES, settings, angles).min())}
    return residuals(shrunk, result) | motion(shrunk) | outlines


def fit_probe(frames: np.ndarray, cameras) -> np.ndarray:
    """Re-renders float32 [V,S,S,4] of the short fit of frames uint8 [V,S,S,4]."""
    with torch.enable_grad():
        gaussians = fit(frames, frames[..., 3], cameras, PROBE).gaussians
    rgb, alpha = render(gaussians, cameras)
    return torch.cat([rgb, alpha], -1).clamp(0, 1).numpy()


def residuals(frames: np.ndarray, renders: np.ndarray) -> dict[str, float]:
    """What a fit leaves: frames uint8 and renders float32 in [0,1], both [V,S,S,4]."""
    wanted = frames.astype(np.float32) / 255
    network = load_perceptual("pocket")
    pairs = [network.features(torch.from_numpy(x[..., :3]).permute(0, 3, 1, 2)) for x in (renders, wanted)]
    detail = network.distance(*pairs).numpy() * wanted[..., 3].size / len(wanted) / _areas(wanted)
    return pixel_residuals(frames, renders) | _mean_and_worst("perceptual", detail)


def pixel_residuals(frames: np.ndarray, renders: np.ndarray) -> dict[str, float]:
    """Those of `residuals` that need no network: of colour and shape."""
    wanted = frames.astype(np.float32) / 255
    areas = _areas(wanted)
    colour = np.sqrt(np.square(renders[..., :3] - wanted[..., :3]).mean(-1).sum((1, 2)) / areas)
    shape = np.abs(renders[..., 3] - wanted[..., 3]).sum((1, 2)) / areas
    return _mean_and_worst("colour", colour) | _mean_and_worst("shape", shape)


def _areas(frames: np.ndarray) -> np.ndarray:
    """Pixels that each frame covers, at least 1: [V]."""
    return np.maximum(frames[..., 3].sum((1, 2)), 1)


def _mean_and_worst(name: str, values: np.ndarray) -> dict[str, float]:
    return {f"{name}_residual": float(values.mean()), f"worst_{name}_residual": float(values.max())}


def motion(frames: np.ndarray) -> dict[str, float]:
    """How frames uint8 [V,S,S,4] change around the circle; steps as shares of the median step."""
    pixels = frames.astype(np.float32) / 255
    area = np.maximum(pixels[..., 3].sum((1, 2)), 1)
    steps = np.sqrt(np.square(pixels - np.roll(pixels, -1, 0)).mean(-1).sum((1, 2)) / area)
    typical = np.median(steps) + 1e-2
    colours = ((pixels[..., :3] - 1 + pixels[..., 3:]).sum((1, 2)) / area[:, None]).mean(-1)
    return {
        "slowest_step": float(1 - min(steps.min() / typical, 1)),
        "fastest_step": float(steps.max() / typical),
        "colour_flicker": float(_bend(colours)),
        "area_flicker": float(_bend(np.log(area))),
    }


def _bend(values: np.ndarray) -> float:
    """Root mean square of the second differences around the circle."""
    return float(np.sqrt(np.square(np.roll(values, 1) - 2 * values + np.roll(values, -1)).mean()))


def small(frames: np.ndarray) -> np.ndarray:
    """uint8 [V,S,S,C] averaged down to at most `PROBE_SIZE` pixels a side."""
    if frames.shape[1] <= PROBE_SIZE:
        return frames
    images = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float()
    return F.adaptive_avg_pool2d(images, PROBE_SIZE).round().byte().permute(0, 2, 3, 1).numpy()
