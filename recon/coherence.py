"""Find the elevation under which a turntable's outlines agree (silhouette coherence): `coherent_elevation`.

Every ray through an outline touches the object, so somewhere along it no other outline is left. Under a wrong
elevation one is: how far, in the image, is the incoherence (Hernandez, Schmitt and Cipolla, "Silhouette Coherence for
Camera Calibration under Circular Motion", 2007). Here two other outlines must be left, so that no single broken frame
decides. Bodies of revolution agree under many elevations, and generated frames agree nowhere quite: the estimate of
the paper's A.1 stays in the sum as a prior.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from recon.config import OrbitConfig
from recon.elevation import MAX_ELEVATION

CANDIDATES = np.radians(np.arange(0.0, 46.0, 3.0))
"""Elevations that are tried, radians; between them the incoherence is interpolated."""
RAYS = 24
"""Rays through each view's outline."""
SAMPLES = 96
"""Samples of a ray, inside the unit sphere."""
MOST = 1 / 32
"""A ray's incoherence counts up to this much of the image's side: the rest is a flaw of one frame."""
PRIOR = 0.1
"""What a distance of `SPREAD` from the estimate costs, in units of the least incoherence, which is what the frames'
own flaws leave at best: where no elevation fits, outlines decide nothing. Chosen on turntables of training assets."""
SPREAD = math.radians(7)
FLOOR = 0.1 / 128
"""Shares of the side that outlines in pixels are off anyway."""


def coherent_elevation(
    masks: NDArray[np.uint8], estimate: float, orbit: OrbitConfig | None = None, azimuths: Sequence[float] | None = None
) -> float:
    """The elevation in radians, in [0, pi/4], near `estimate` under which the outlines of a turntable agree.

    Args:
        masks: coverage uint8 [V,S,S] of the views, as of `masks_of`.
        estimate: radians, from `ElevationEstimator.estimate`, brought into [0, pi/4]. It is what is returned where
            outlines tell nothing: no object, an object that fills the image, one or two views.
        azimuths: of the views, radians; one even turn if there are none.

    Raises:
        ValueError: if the masks are no uint8 [V,S,S], or the estimate is not finite.
    """
    from scipy.interpolate import CubicSpline

    if not math.isfinite(estimate):
        raise ValueError(f"the estimated elevation is {estimate}; it must be a finite angle in radians")
    angles = np.linspace(CANDIDATES[0], MAX_ELEVATION, 451)
    found = CubicSpline(CANDIDATES, incoherence(masks, CANDIDATES, orbit, azimuths))(angles)
    cost = found / (max(found.min(), 0) + FLOOR) + PRIOR * ((angles - estimate) / SPREAD) ** 2
    return float(angles[cost.argmin()])


def incoherence(
    masks: NDArray[np.uint8], elevations: NDArray[np.floating], orbit: OrbitConfig | None = None,
    azimuths: Sequence[float] | None = None,
) -> NDArray[np.float64]:  # fmt: skip
    """How far [E] the rays of a turntable's outlines miss what the other outlines leave, at each of `elevations` [E].

    The mean over `RAYS` rays a view of how far they stay outside of the second farthest outline, in shares of the
    image's side.
    Arguments and errors: see `coherent_elevation`.
    """
    if masks.dtype != np.uint8 or masks.ndim != 3 or not len(masks) or masks.shape[1] != masks.shape[2]:
        raise ValueError(f"masks are {masks.dtype} {masks.shape}; outlines are taken from uint8 [V>=1,S,S]")
    angles = even_turn(len(masks)) if azimuths is None else azimuths
    return Outlines(masks, orbit or OrbitConfig()).incoherence(elevations, angles)


def even_turn(count: int) -> list[float]:
    """Azimuths of one even turn of `count` views from 0, radians."""
    return [2 * math.pi * k / count for k in range(count)]


class Outlines:
    """The outlines of a turntable, read once and asked about as many cameras as are wanted.

    Args:
        masks: uint8 [V,S,S], checked. orbit: field of view and distance.
    """

    def __init__(self, masks: NDArray[np.uint8], orbit: OrbitConfig) -> None:
        self.size, self.distance = masks.shape[1], orbit.distance
        self.focal = 0.5 * self.size / math.tan(math.radians(orbit.fov_degrees) / 2)
        self.depths = np.stack([_depth(mask > 127) for mask in masks])
        self.pixels, self.views = _outline_pixels(self.depths)

    def incoherence(
        self, elevations: NDArray[np.floating] | Sequence[float], azimuths: Sequence[float]
    ) -> NDArray[np.float64]:
        """See the function `incoherence`; zeros where outlines tell nothing."""
        if not len(self.pixels) or len(self.depths) < 3:
            return np.zeros(len(elevations))
        reached = np.empty((len(elevations), len(self.pixels)))
        angles, heights = np.asarray(azimuths, np.float64), np.asarray(elevations, np.float64)
        _deepest(self.depths, self.pixels, self.views, heights, angles, self.focal, self.distance, reached)
        return (-reached / self.size).clip(0, MOST).mean(1).astype(np.float64)


def _depth(inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Pixels from each pixel [S,S] to the outline, positive inside."""
    from scipy.ndimage import distance_transform_edt

    padded = np.pad(inside, 1)
    inwards = np.asarray(distance_transform_edt(padded))
    outwards = np.asarray(distance_transform_edt(~padded)) if inside.any() else padded.size
    return (inwards - outwards)[1:-1, 1:-1].astype(np.float32)


def _outline_pixels(depths: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(row, column) [R,2] and view [R] of at most `RAYS` pixels of each outline, from top to bottom, off the border."""
    pixels, views = [], []
    for view, depth in enumerate(depths):
        edge = np.argwhere((depth > 0) & (depth < 1.5))
        inner = edge[((edge > 0) & (edge < len(depth) - 1)).all(1)]
        chosen = inner[np.linspace(0, len(inner) - 1, min(RAYS, len(inner))).astype(int)]
        pixels.append(chosen)
        views += [view] * len(chosen)
    return np.concatenate(pixels), np.array(views, np.int64)


@njit(cache=True)
def _deepest(depths, pixels, views, elevations, azimuths, focal, distance, reached):
    """Fill `reached` [E,R]: along each ray the greatest of the second least depths in other views, in pixels."""
    count, size, _ = depths.shape
    for e in range(len(elevations)):
        cosine, sine = math.cos(elevations[e]), math.sin(elevations[e])
        for r in range(len(pixels)):
            x, y = (pixels[r, 1] + 0.5 - size / 2) / focal, (pixels[r, 0] + 0.5 - size / 2) / focal
            best = -np.inf
            for s in range(SAMPLES):
                z = distance - 1 + 2 * (s + 0.5) / SAMPLES
                px, py, pz = x * z, y * z, z - distance
                up, front = -cosine * py - sine * pz, sine * py - cosine * pz
                if px * px + up * up + front * front > 1:
                    continue
                least, second = np.inf, np.inf
                for k in range(1, count):
                    step = (k + 1) // 2 if k % 2 else -(k // 2)
                    other = (views[r] + step) % count
                    turn = azimuths[other] - azimuths[views[r]]
                    right = math.cos(turn) * px - math.sin(turn) * front
                    towards = math.sin(turn) * px + math.cos(turn) * front
                    depth_z = distance - sine * up - cosine * towards
                    u = focal * right / depth_z + size / 2 - 0.5
                    v = focal * (sine * towards - cosine * up) / depth_z + size / 2 - 0.5
                    if u < 0 or v < 0 or u >= size - 1 or v >= size - 1:
                        continue
                    column, row = int(u), int(v)
                    a, b = u - column, v - row
                    view = depths[other]
                    above = view[row, column] * (1 - a) + view[row, column + 1] * a
                    below = view[row + 1, column] * (1 - a) + view[row + 1, column + 1] * a
                    depth = above * (1 - b) + below * b
                    least, second = min(least, depth), min(second, max(least, depth))
                    if second < best:
                        break
                best = max(best, second)
            reached[e, r] = best
