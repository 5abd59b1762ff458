"""Find near-duplicates among unit vectors: `Leaders`, clusters by their first members, exact, without all pairs.

A vector joins the most similar leader whose cosine reaches the threshold, and leads a cluster of its own where there is
none. Leaders lie in Voronoi cells around some of them. A vector x in the cell of pivot p can have a leader within the
distance r = sqrt(2 - 2 threshold) in the cell of pivot q only if it is no farther than r from the plane between p and
q: (|x - q|^2 - |x - p|^2) / (2 |p - q|) <= r. All other cells are left out, so the cells change the work alone.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
BLOCK = 1024
"""Vectors that are compared at a time."""
_SLACK = 1e-3
"""Of distances, for rounding: more cells are looked into."""


class Leaders:
    """Clusters of unit vectors.

    Args:
        threshold: cosine from which a vector belongs to a leader, in (0, 1].
        dimension: of the vectors.

    Attributes:
        compared: pairs of vectors whose cosine was taken so far.
    """

    def __init__(self, threshold: float, dimension: int) -> None:
        self.threshold = threshold
        self.compared = 0
        self._reach = math.sqrt(max(0.0, 2 - 2 * threshold)) + _SLACK
        self._vectors: Vectors = np.zeros((BLOCK, dimension), np.float32)
        self._count = 0
        self._pivots: Vectors = np.zeros((0, dimension), np.float32)
        self._cells: list[NDArray[np.int64]] = []

    def __len__(self) -> int:
        return self._count

    def add(self, vectors: Vectors) -> NDArray[np.int64]:
        """The leaders [B] of vectors [B,D], by their number in order of arrival; new ones are added."""
        found = [self._add_block(vectors[start : start + BLOCK]) for start in range(0, len(vectors), BLOCK)]
        return np.concatenate([np.zeros(0, np.int64), *found])

    def _add_block(self, block: Vectors) -> NDArray[np.int64]:
        leaders, best = self._nearest(block)
        fresh, first = np.flatnonzero(best < self.threshold), self._count
        similar = block @ block[fresh].T
        self.compared += similar.size
        later = np.arange(len(block))
        for k, row in enumerate(fresh):
            if best[row] < self.threshold:
                leaders[row], best[row] = self._append(block[row]), 1.0
                nearer = (similar[:, k] > best) & (similar[:, k] >= self.threshold) & (later > row)
                leaders[nearer], best[nearer] = leaders[row], similar[nearer, k]
        self._sort_into_cells(first)
        return leaders

    def _append(self, vector: Vectors) -> int:
        if self._count == len(self._vectors):
            self._vectors = np.concatenate([self._vectors, np.zeros_like(self._vectors)])
        self._vectors[self._count] = vector
        self._count += 1
        return self._count - 1

    def _nearest(self, block: Vectors) -> tuple[NDArray[np.int64], Vectors]:
        """The most similar leader of each vector among the cells that can hold one within reach, and its cosine."""
        leaders, best = np.full(len(block), -1), np.full(len(block), -1.0, np.float32)
        for members, rows in self._candidates(block):
            cosines = block[rows] @ self._vectors[members].T
            self.compared += cosines.size
            place = cosines.argmax(1)
            value = cosines[np.arange(len(rows)), place]
            nearer = value > best[rows]
            leaders[rows[nearer]], best[rows[nearer]] = members[place[nearer]], value[nearer]
        return leaders, best

    def _candidates(self, block: Vectors) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Leaders of a cell, and the vectors that must be compared with them."""
        if not self._count:
            return []
        if not len(self._pivots):
            return [(np.arange(self._count), np.arange(len(block)))]
        squared = 2 - 2 * (block @ self._pivots.T)
        own = squared.argmin(1)
        apart = np.sqrt(np.maximum(0, 2 - 2 * (self._pivots @ self._pivots.T)))[own]
        near = squared - squared.min(1, keepdims=True) <= 2 * self._reach * np.maximum(apart, _SLACK) + _SLACK
        pairs = ((cell, np.flatnonzero(near[:, k])) for k, cell in enumerate(self._cells))
        return [(cell, rows) for cell, rows in pairs if len(cell) and len(rows)]

    def _sort_into_cells(self, first: int) -> None:
        """Put leaders from `first` on into their cells; choose new pivots once there are four times as many leaders."""
        wanted = int(math.sqrt(self._count))
        if self._count >= 4 * BLOCK and wanted >= 2 * len(self._pivots):
            self._pivots = self._vectors[np.linspace(0, self._count - 1, wanted).astype(int)].copy()
            self._cells, first = [np.zeros(0, np.int64)] * wanted, 0
        if len(self._pivots) and first < self._count:
            numbers = np.arange(first, self._count)
            parts = np.array_split(numbers, len(numbers) // BLOCK + 1)
            cells = np.concatenate([(self._vectors[part] @ self._pivots.T).argmax(1) for part in parts])
            order = np.argsort(cells, kind="stable")
            edges = np.searchsorted(cells[order], np.arange(len(self._pivots) + 1))
            for k in np.flatnonzero(np.diff(edges)):
                self._cells[k] = np.concatenate([self._cells[k], numbers[order[edges[k] : edges[k + 1]]]])
