"""Fill the neighbourhood of a surface with tetrahedra: `grid_about`.

The vertices are those of a body-centred cubic lattice, the corners and centres of cubes. Four tetrahedra surround the
line between the centres of two neighbouring cubes; each has that line and an edge of the face between them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

EDGES = np.array([[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]])
"""Corners of a tetrahedron that its edges join."""
_AXES = np.array([[[0, 0, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1]],
                  [[0, 0, 0], [0, 0, 1], [1, 0, 1], [1, 0, 0]],
                  [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]])  # fmt: skip
"""The corners of the face between a cube and its next along each axis, around that axis, from the next cube's first."""


@dataclass(kw_only=True, slots=True)
class Grid:
    """G vertices, T tetrahedra of positive volume, and the E edges that these have."""

    places: NDArray[np.float32]
    """[G,3] world positions."""
    tetrahedra: NDArray[np.int32]
    """[T,4] vertices."""
    edges: NDArray[np.int32]
    """[E,2] vertices."""
    edges_of: NDArray[np.int32]
    """[T,6] edges of the tetrahedra, in the order of `EDGES`."""
    step: float
    """A cube's side, world units."""


def lattice(low: NDArray, step: float, cubes: NDArray) -> NDArray[np.float32]:
    """World positions [N,3] of all corners, then all centres, of `cubes` [3] cubes from `low` [3]."""
    corners = np.stack(np.meshgrid(*(np.arange(n + 1) for n in cubes), indexing="ij"), -1).reshape(-1, 3)
    centres = np.stack(np.meshgrid(*(np.arange(n) + 0.5 for n in cubes), indexing="ij"), -1).reshape(-1, 3)
    return (np.concatenate([corners, centres]) * step + low).astype(np.float32)


def grid_about(near: NDArray[np.bool_], low: NDArray, step: float, cubes: NDArray) -> tuple[Grid, NDArray[np.int64]]:
    """The grid of the tetrahedra that have a vertex where `near` [N] holds, and which of `lattice` its vertices are."""
    tetrahedra = np.concatenate([_along(axis, near, cubes) for axis in range(3)])
    kept, flat = np.unique(tetrahedra, return_inverse=True)
    tetrahedra = flat.reshape(-1, 4)
    pairs = np.sort(tetrahedra[:, EDGES], -1).reshape(-1, 2)
    keys, edges_of = np.unique(pairs[:, 0] * len(kept) + pairs[:, 1], return_inverse=True)
    edges = np.stack([keys // len(kept), keys % len(kept)], -1)
    grid = Grid(
        places=lattice(low, step, cubes)[kept], tetrahedra=tetrahedra.astype(np.int32), edges=edges.astype(np.int32),
        edges_of=edges_of.reshape(-1, 6).astype(np.int32), step=step,
    )  # fmt: skip
    return grid, kept


def _along(axis: int, near: NDArray[np.bool_], cubes: NDArray) -> NDArray[np.int64]:
    """The tetrahedra [T,4] about the lines between cubes that are neighbours along an axis, some vertex `near`."""
    counts = cubes - np.eye(3, dtype=int)[axis]
    first = np.stack(np.meshgrid(*(np.arange(n) for n in counts), indexing="ij"), -1).reshape(-1, 3)
    ahead = np.eye(3, dtype=int)[axis]
    num_corners = int(np.prod(cubes + 1))
    centres = [num_corners + _index(first, cubes), num_corners + _index(first + ahead, cubes)]
    ring = [_index(first + ahead + offset, cubes + 1) for offset in _AXES[axis]]
    found = []
    for k in range(4):
        four = [centres[0], centres[1], ring[k], ring[(k + 1) % 4]]
        wanted = near[four[0]] | near[four[1]] | near[four[2]] | near[four[3]]
        found.append(np.stack([vertex[wanted] for vertex in four], -1))
    return np.concatenate(found)


def _index(places: NDArray, counts: NDArray) -> NDArray[np.int64]:
    return (places[:, 0] * counts[1] + places[:, 1]) * counts[2] + places[:, 2]
