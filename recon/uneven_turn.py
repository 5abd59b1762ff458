"""Find the azimuths of a video that turns unevenly, the other way round, or by less than a circle: `estimate_turn`.

A generator that was only asked for a turn promises neither speed nor direction. The speed profile and the direction
come from how the near surface moves in the picture; how far the turn goes, the profile's slow errors and the elevation
are those under which the outlines agree best (`recon.coherence`; Hernandez, Schmitt and Cipolla 2007 recover circular
motion so). A video that is no turn is refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, gaussian_filter1d
from torch.nn import functional as F

from recon.coherence import Outlines
from recon.config import OrbitConfig
from recon.user_error import UserError

SIDE, VIEWS = 64, 17
"""Pixels a side and frames, in even steps of time, that outlines are compared at."""
EXTENTS = np.radians(np.arange(120, 481, 20))
"""How far the turn may go."""
ELEVATIONS = np.radians(np.arange(0, 46, 9))
KNOTS = 5
"""Of the correction of the speed over time, logarithms, linear between them."""
STEPS = 260
"""Evaluations of the local search."""
STILL = 0.02
"""Mean change of the object's pixels over the video, of 1, under which nothing moves."""
BACK = 0.25
"""Share of the motion that may go against the rest."""
LEAST = math.radians(150)
"""A shorter turn shows too little of the object."""
INCOHERENT = 0.006
"""Incoherence over which the outlines are those of no rigid object that turns, in shares of the side."""
CLOSED, PULL = 0.4, 0.002
"""A later frame that differs from the first by less than this share of the median closes the circle; what a miss of 20
degrees costs then."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundTurn:
    """A turn as its frames show it."""

    azimuths: tuple[float, ...]
    """Of every frame, radians as in `recon.cameras`, the first 0; falling where the camera goes clockwise."""
    elevation: float
    """Radians, of all frames: where outlines agree, not yet corrected by an estimate from the pictures."""
    incoherence: float
    """See `recon.coherence.incoherence`."""


def estimate_turn(frames: NDArray[np.uint8], masks: NDArray[np.uint8], orbit: OrbitConfig | None = None) -> FoundTurn:
    """The turn of a video around one object.

    Args:
        frames: uint8 [V,S,S,3|4] on white, V >= 8. masks: their coverage uint8 [V,S,S].
        orbit: field of view and distance.

    Raises:
        UserError: if the video is no turn.
    """
    if len(frames) < 8 or masks.shape != frames.shape[:3]:
        raise UserError(f"{len(frames)} frames with masks {list(masks.shape)} are too few for a turn; give at least 8")
    small = _small(np.concatenate([frames[..., :3], masks[..., None]], -1))
    grey, inside = small[..., :3].mean(-1), small[..., 3] > 0.5
    if inside.sum((1, 2)).min() == 0:
        raise UserError("the video is no turn: in some frames no object is found")
    _check_moving(small)
    flow = np.array([_sideways(grey[k], grey[k + 1], inside[k] & inside[k + 1]) for k in range(len(grey) - 1)])
    _check_one_way(flow)
    search = _Search(small, gaussian_filter1d(np.abs(flow), 1.5) + 0.1 * np.abs(flow).mean(), orbit or OrbitConfig())
    sign = -1.0 if flow.sum() > 0 else 1.0  # the near surface moves against the camera
    found = search.best(sign)
    if found.incoherence > INCOHERENT:
        raise UserError(
            f"the video is no turn of one rigid object: its outlines agree to {100 * found.incoherence:.1f}% of the "
            f"picture's side at best, {100 * INCOHERENT:.1f}% is the limit"
        )
    if abs(found.azimuths[-1]) < LEAST:
        raise UserError(
            f"the video shows {math.degrees(abs(found.azimuths[-1])):.0f} degrees of a turn; a fit needs "
            f"{math.degrees(LEAST):.0f}"
        )
    return found


def _small(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """[V,S,S,C] averaged down to `SIDE`, in [0,1]."""
    pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 255
    small = F.adaptive_avg_pool2d(pixels, SIDE) if frames.shape[1] > SIDE else pixels
    return small.permute(0, 2, 3, 1).numpy()


def _differences(frames: NDArray[np.float32]) -> NDArray[np.float64]:
    """How every frame [V,S,S,4] differs from the first, mean over the pixels of both objects."""
    area = np.maximum(frames[0, ..., 3], frames[..., 3]).sum((1, 2))
    return np.abs(frames - frames[0]).mean(-1).sum((1, 2)) / area


def _check_moving(frames: NDArray[np.float32]) -> None:
    change = _differences(frames).max()
    if change < STILL:
        raise UserError(f"the video is no turn: its frames differ by {100 * change:.1f}% at most, nothing moves")


def _check_one_way(flow: NDArray[np.float64]) -> None:
    smooth = gaussian_filter1d(flow, 2)
    share = min(smooth.clip(0).sum(), -smooth.clip(max=0).sum()) / max(np.abs(smooth).sum(), 1e-9)
    if share > BACK:
        raise UserError(f"the video is no turn: {100 * share:.0f}% of its motion goes back again")


def _sideways(before: NDArray[np.float32], after: NDArray[np.float32], inside: NDArray[np.bool_]) -> float:
    """How far the object's surface moves to the right, pixels (Lucas and Kanade 1981, one shift for all)."""
    deep: NDArray[np.bool_] = np.asarray(binary_erosion(inside, iterations=2), bool)
    slope = np.gradient((before + after) / 2, axis=1)[deep]
    return float(-(slope * (after - before)[deep]).sum() / (np.square(slope).sum() + 1e-4))


class _Search:
    """The turn under which outlines agree best, among those of a speed profile."""

    def __init__(self, frames: NDArray[np.float32], speeds: NDArray[np.float64], orbit: OrbitConfig) -> None:
        self.speeds, self.count = speeds / speeds.mean(), len(frames)
        self.taken = sorted({round(k) for k in np.linspace(0, self.count - 1, min(VIEWS, self.count)).tolist()})
        self.outlines = Outlines((frames[self.taken, ..., 3] * 255).round().astype(np.uint8), orbit)
        self.closing = _closing_frame(frames)

    def places(self, power: float, knots: NDArray[np.float64]) -> NDArray[np.float64]:
        """Share of the turn [V] that every frame has made: the profile to a `power`, corrected at the `knots`."""
        times = np.linspace(0, 1, self.count - 1)
        speeds = self.speeds**power * np.exp(np.interp(times, np.linspace(0, 1, KNOTS), knots))
        return np.concatenate([[0.0], np.cumsum(speeds) / speeds.sum()])

    def cost(self, azimuths: NDArray[np.float64], elevations: NDArray[np.float64]) -> NDArray[np.float64]:
        """Incoherence [E], and what a frame that closes the circle elsewhere adds."""
        found = self.outlines.incoherence(elevations, azimuths[self.taken].tolist())
        if self.closing is not None:
            found = found + PULL * min(abs(abs(azimuths[self.closing]) - 2 * math.pi) / math.radians(20), 2.0) ** 2
        return found

    def best(self, sign: float) -> FoundTurn:
        """The best of a grid, then of a local search from there."""
        from scipy.optimize import minimize

        even = np.zeros(KNOTS)
        grid = [(extent, power) for extent in EXTENTS for power in (0.0, 0.5, 1.0)]
        costs = np.stack([self.cost(sign * e * self.places(p, even), ELEVATIONS) for e, p in grid])
        place, height = divmod(int(costs.argmin()), len(ELEVATIONS))
        extent, power = grid[place]

        def turned(x: NDArray[np.float64]) -> NDArray[np.float64]:
            return sign * x[0] * self.places(power, x[2:])

        def value(x: NDArray[np.float64]) -> float:
            away = np.square(x[2:]).sum() + 1e3 * max(0.0, -x[1], x[1] - math.pi / 4)
            return float(self.cost(turned(x), x[1:2])[0]) + 2e-4 * away

        start = np.array([extent, ELEVATIONS[height], *even])
        simplex = start + np.vstack([np.zeros(len(start)), np.diag([0.2, 0.1, *[0.4] * KNOTS])])
        options = {"initial_simplex": simplex, "maxfev": STEPS, "xatol": 1e-3, "fatol": 1e-6}
        x = minimize(value, start, method="Nelder-Mead", options=options).x
        left = self.outlines.incoherence(x[1:2], turned(x)[self.taken].tolist())[0]
        return FoundTurn(azimuths=tuple(turned(x).tolist()), elevation=float(x[1]), incoherence=float(left))


def _closing_frame(frames: NDArray[np.float32]) -> int | None:
    """The frame after the first third that shows the first view again, if any does."""
    apart, start = _differences(frames), len(frames) // 3
    place = start + int(apart[start:].argmin())
    return place if apart[place] < CLOSED * np.median(apart[1:]) else None
