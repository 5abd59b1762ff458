"""Measure how usable a finished asset is, from its Gaussians and the frames that they were fitted to: `measure`.

What is looked at: the structure of the Gaussians, how they agree with the frames, and how their pictures go on between
these. A logistic model makes one probability of it (`load_quality_model`); `benchmarks.quality_gate` calibrates it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recon.cameras import Cameras, OrbitConfig, around
from recon.gaussians import Gaussians, render
from recon.hull import OUTSIDE, look_up
from recon.risk import RiskModel
from recon.yield_gate import motion, pixel_residuals, small

WEIGHTS = Path(__file__).parent / "weights" / "quality"
MEASURES = {
    "colour_residual": "it disagrees with its frames in colour",
    "worst_colour_residual": "it disagrees with single frames in colour",
    "shape_residual": "its outline is not that of its frames",
    "worst_shape_residual": "its outline is not that of single frames",
    "colour_flicker": "its colours flicker as it turns",
    "area_flicker": "its size flickers as it turns",
    "between": "between the frames it looks unlike both",
    "worst_between": "between two frames it looks unlike both",
    "outside": "parts lie outside of its outlines",
    "floating": "parts float beside it",
    "faint": "it is see-through",
    "smeared": "single Gaussians are as large as the object",
    "thin": "it is flat",
    "hidden": "much of it is seen from nowhere",
    "ragged": "its edges are blurred",
    "pale": "some of the ground is left in it",
    "tiny": "it is small in the picture",
    "unlike": "it does not look like its prompt",
}
"""What is measured, each >= 0, and how it is said in an asset's row."""
CELLS = 48
"""Of the grid in which parts are told apart, along the unit ball's diameter."""
PRESENT = 0.2
"""A Gaussian of at least this opacity fills its cell."""
WHITE = 245
"""Of 255: a covered pixel that is this bright in every channel may be ground."""
BEHIND = 0.1
"""World units that a Gaussian may lie behind the nearest one of its pixel and still be seen."""


def load_quality_model(folder: Path = WEIGHTS) -> RiskModel:
    """The model of the probability that an asset is unusable; a ValueError says if there is none."""
    return RiskModel.load(folder)


@torch.no_grad()
def measure(
    gaussians: Gaussians, frames: NDArray[np.uint8], elevation: float, orbit: OrbitConfig, azimuths: Sequence[float],
    unlike: float | None = None,
) -> dict[str, float | None]:  # fmt: skip
    """The `MEASURES` of an asset.

    Args:
        gaussians: on the device that renders them.
        frames: those of the fit, uint8 [V,S,S,4] on white, A is coverage; V >= 4.
        elevation: of their cameras, radians.
        azimuths: of the frames, radians.
        unlike: 1 - cosine of CLIP between its views and its prompt, in [0, 2], where it is known.

    Raises:
        ValueError: for fewer than four frames.
    """
    if len(frames) < 4:
        raise ValueError(f"an asset of {len(frames)} frames cannot be judged; give at least 4")
    order = np.argsort(azimuths)
    frames, angles = frames[order], np.array(azimuths)[order]
    halves = angles + 0.5 * np.diff(angles, append=angles[0] + 2 * np.pi)
    cameras, others = (around(torch.tensor(turn), elevation, frames.shape[1], orbit) for turn in (angles, halves))
    at, between = _pictures(gaussians, cameras), _pictures(gaussians, others)
    turning, here = motion(between), gaussians.to("cpu")
    found = pixel_residuals(small(frames), at.astype(np.float32) / 255)
    found |= {name: turning[name] for name in ("colour_flicker", "area_flicker")}
    found |= continuity(at, between) | structure(here) | seen(here, frames, cameras) | pixels(at)
    return {**found, "unlike": unlike}


def continuity(at: NDArray[np.uint8], between: NDArray[np.uint8]) -> dict[str, float]:
    """How far pictures half-way are from the mean of their neighbours, as shares of what changes between these.

    Args:
        at: pictures uint8 [V,S,S,4], in order around the circle. between: half-way from each to the next.
    """
    here, half = at.astype(np.float32) / 255, between.astype(np.float32) / 255
    following = np.roll(here, -1, 0)
    changes = np.abs(following - here).mean((1, 2, 3)) + 5e-3
    shares = np.abs(half - (here + following) / 2).mean((1, 2, 3)) / changes
    return {"between": float(shares.mean()), "worst_between": float(shares.max())}


def structure(gaussians: Gaussians) -> dict[str, float]:
    """What the Gaussians alone tell; each counts by the area and opacity that it shows."""
    from scipy import ndimage

    means, alphas, deviations = (
        value.double().numpy() for value in (gaussians.means, gaussians.alphas, gaussians.standard_deviations)
    )
    longest = np.sort(deviations, 1)
    weights = alphas * longest[:, 1] * longest[:, 2] + 1e-12
    weights /= weights.sum()
    middle = weights @ means
    spread = np.sort(np.linalg.eigvalsh((means - middle).T @ ((means - middle) * weights[:, None])).clip(0) ** 0.5)
    cells = ((means.clip(-1, 1) + 1) / 2 * (CELLS - 1)).round().astype(int)
    full = np.zeros((CELLS,) * 3, bool)
    full[tuple(cells[alphas >= PRESENT].T)] = True
    labelled: Any = ndimage.label(ndimage.binary_dilation(full, iterations=1))
    labels, count = labelled
    parts = np.bincount(labels[tuple(cells.T)], weights, count + 1)[1:]
    return {
        "floating": float(1 - parts.max(initial=0.0)),
        "faint": float(1 - weights @ alphas),
        "smeared": float(np.quantile(longest[:, 2], 0.99) / max(spread[2], 1e-3)),
        "thin": float(spread[2] / max(spread[0], 1e-2)),
    }


def seen(gaussians: Gaussians, frames: NDArray[np.uint8], cameras: Cameras) -> dict[str, float]:
    """Shares of the Gaussians that the outlines leave no place to, and that lie behind others in every view."""
    means, weights = gaussians.means, gaussians.alphas * gaussians.standard_deviations.amax(1) ** 2 + 1e-12
    pictures = torch.from_numpy(frames.astype(np.float32) / 255)
    covered, _ = look_up(means, pictures[..., :3], pictures[..., 3], cameras)
    visible = torch.zeros(len(means), dtype=torch.bool)
    for viewmat, K in zip(cameras.viewmats, cameras.Ks, strict=True):
        places = means @ viewmat[:3, :3].T + viewmat[:3, 3]
        spots = (places @ K.T)[:, :2] / places[:, 2:].clamp_min(1e-3)
        cell = spots.floor().long().clamp(0, cameras.size - 1) @ torch.tensor([1, cameras.size])
        nearest = torch.full((cameras.size**2,), torch.inf).scatter_reduce(0, cell, places[:, 2], "amin")
        visible |= places[:, 2] <= nearest[cell] + BEHIND
    share = weights / weights.sum()
    return {
        "outside": float(share[covered < 1 - 2 * OUTSIDE].sum()),
        "hidden": float(share[~visible].sum()),
    }


def pixels(pictures: NDArray[np.uint8]) -> dict[str, float]:
    """What pictures uint8 [V,S,S,4] over white tell by themselves."""
    alpha = pictures[..., 3]
    solid = alpha >= 128
    area = max(float(solid.mean()), 1e-4)
    pale = solid & (pictures[..., :3] >= WHITE).all(-1)
    return {
        "ragged": float(((alpha > 25) & (alpha < 230)).mean() / area),
        "pale": float(pale.mean() / area),
        "tiny": 1 / area,
    }


def _pictures(gaussians: Gaussians, cameras: Cameras) -> NDArray[np.uint8]:
    """Pictures [V,S,S,4] at the size of the frames, averaged down as these are."""
    rgb, alpha = render(gaussians, cameras)
    return small((torch.cat([rgb, alpha], -1).clamp(0, 1) * 255).round().byte().cpu().numpy())
