"""Clusters by leaders are those of plain comparison with all of them, at less work."""

from __future__ import annotations

import numpy as np
import pytest

from factory.outputs.dataset.leaders import Leaders, Vectors


def unit(vectors: np.ndarray) -> Vectors:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def plainly(vectors: Vectors, threshold: float) -> list[int]:
    """Each vector beside all leaders so far."""
    leaders, found = np.zeros_like(vectors), []
    count = 0
    for vector in vectors:
        cosines = leaders[:count] @ vector
        best = int(cosines.argmax()) if count else -1
        if count and cosines[best] >= threshold:
            found.append(best)
            continue
        leaders[count] = vector
        found.append(count)
        count += 1
    return found


def some_vectors(count: int, dimension: int) -> Vectors:
    """Half of them near another."""
    random = np.random.default_rng(0)
    base = unit(random.normal(size=(count // 2, dimension)))
    near = base[random.integers(0, len(base), count - len(base))] + random.normal(size=base.shape) * 0.05
    return random.permutation(np.concatenate([base, unit(near)]))


@pytest.mark.parametrize("threshold", [0.9, 0.97])
def test_clusters_are_those_of_all_comparisons(threshold: float) -> None:
    vectors = some_vectors(14_000, 8)
    leaders = Leaders(threshold, 8)
    found = np.concatenate([leaders.add(part) for part in np.array_split(vectors, 7)])
    assert found.tolist() == plainly(vectors, threshold)
    assert len(leaders) > 4096 or threshold == 0.9, "cells are in use"


def test_cells_spare_most_comparisons() -> None:
    leaders = Leaders(0.97, 8)
    leaders.add(some_vectors(30_000, 8))
    assert len(leaders) > 4096
    assert leaders.compared < 0.4 * 30_000 * len(leaders) / 2


def test_equal_vectors_are_one_cluster_and_none_is_none() -> None:
    leaders = Leaders(1.0, 4)
    assert leaders.add(np.zeros((0, 4), np.float32)).tolist() == []
    one, other = np.eye(4, dtype=np.float32)[:2]
    assert leaders.add(np.stack([one, other, one])).tolist() == [0, 1, 0]
    assert leaders.add(np.stack([other, -one])).tolist() == [1, 2]
