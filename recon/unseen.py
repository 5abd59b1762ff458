"""Close a solid smoothly where no camera has looked, as below an object that is looked at from above: `closed`.

The outlines leave a cone below such an object, and nothing there is known. What a view sees through is empty, what a
view sees squarely is full, and between the two the surface shrinks as a soap film does (mean curvature flow by blurring
and sharpening; Merriman, Bence and Osher 1994): the film over a rim is flat, and what is open behind a seen surface is
filled.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recon.cameras import Cameras
from recon.dmtet.pictures import SUPERSAMPLING, Look, look

COARSE = 56
"""Cells along the longest side of the grid on which the film shrinks."""
SQUARELY = 0.2
"""A surface counts as seen where the cosine between its normal and the way to the eye exceeds this."""
SHELL = 2.0
"""What lies less than this many cells behind a surface that is seen squarely stays full."""
BLUR, SHARPEN = 1.0, 1.5
"""Standard deviation of a round's blur, cells, and the slope that sharpens after it. A shell is thicker than the blur
reaches, or the film would pull away from it."""
ROUNDS, STILL = 300, 1e-3
"""At most so many rounds; fewer where one changes the film's phase by less than this."""


def closed(
    values: NDArray[np.float32], surface: tuple[NDArray, NDArray], origin: NDArray, step: float, cameras: Cameras
) -> NDArray[np.float32]:
    """A solid with a smooth surface where no view sees it.

    Args:
        values: [X,Y,Z], above 1 inside, empty at the border.
        surface: its vertices [V,3], samples, and faces [F,3].
        origin: world position [3] of the first sample; `step`: between samples, world units.
        cameras: those of the frames that the solid was made of.
    """
    from scipy.ndimage import map_coordinates

    cell = max(values.shape) / COARSE
    counts = np.ceil(np.array(values.shape) / cell).astype(int) + 1
    points = np.stack(np.meshgrid(*(np.arange(n) * cell for n in counts), indexing="ij"), -1).reshape(-1, 3)
    empty, full = np.zeros(len(points), bool), np.zeros(len(points), bool)
    for view in looks(surface, origin, step, cameras):
        behind, slant = view.at(points * step + origin)
        empty |= behind < -0.5 * cell * step
        full |= (slant > SQUARELY) & (behind >= -0.5 * cell * step) & (behind < SHELL * cell * step)
    empty, full = (empty & ~full).reshape(counts), full.reshape(counts)
    places = np.stack(np.meshgrid(*(np.arange(n) / cell for n in values.shape), indexing="ij"))
    film = map_coordinates(_shrunk(empty, full), places, order=1, mode="nearest")
    known = map_coordinates((empty | full).astype(np.float32), places, order=1, mode="nearest")
    found, inner = np.zeros_like(values), (slice(1, -1),) * 3
    found[inner] = (known * values.clip(0, 2) + (1 - known) * 2 * film)[inner]
    return found


def seen_parts(
    labels: NDArray, surface: tuple[NDArray, NDArray], origin: NDArray, step: float, cameras: Cameras
) -> NDArray[np.int64]:
    """Which of separate parts, labels [X,Y,Z] (0: outside), cover a pixel in half of the views; else as `closed`."""
    vertices, faces = surface
    ends = (labels[tuple(rounded(vertices).astype(int).T)] for rounded in (np.floor, np.ceil))
    parts, counts = np.maximum(*ends)[faces[:, 0]], np.zeros(labels.max() + 1, int)
    for view in looks(surface, origin, step, cameras):
        found = np.bincount(parts[view.owners[view.owners >= 0]], minlength=len(counts))
        counts += found >= SUPERSAMPLING**2
    return np.flatnonzero(counts >= len(cameras) / 2)


def looks(surface: tuple[NDArray, NDArray], origin: NDArray, step: float, cameras: Cameras) -> list[Look]:
    """What every camera sees of a surface in samples."""
    vertices, faces = (surface[0] * step + origin).astype(np.float32), surface[1].astype(np.int32)
    pairs = zip(cameras.viewmats.cpu(), cameras.Ks.cpu(), strict=True)
    return [look(vertices, faces, viewmat, K, cameras.size) for viewmat, K in pairs]


def _shrunk(empty: NDArray[np.bool_], full: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The film's phase [X,Y,Z] between 0 outside and 1 inside, from all that is not empty."""
    from scipy.ndimage import gaussian_filter

    film = (~empty).astype(np.float32)
    for _ in range(ROUNDS):
        moved = (0.5 + SHARPEN * (gaussian_filter(film, BLUR, mode="constant", truncate=2) - 0.5)).clip(0, 1)
        moved[empty], moved[full] = 0, 1
        change = np.abs(moved - film).sum() / max(((film > 0) & (film < 1)).sum(), 1)
        film = moved
        if change < STILL:
            break
    return film
