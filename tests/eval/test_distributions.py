"""Distances between sets: equal to independent implementations, unbiased, intervals that cover, refusals by name."""

import numpy as np
import pytest
import scipy.linalg

from eval.distributions import (
    Distance,
    FrechetSums,
    KernelSums,
    distances,
    frechet_distance,
    gathered,
)


def objects(count: int, views: int = 4, dim: int = 6, shift: float = 0.0, seed: int = 0) -> list[np.ndarray]:
    """Features of objects whose views resemble each other."""
    random = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(dim, dim))
    return [(random.normal(size=dim) + 0.5 * random.normal(size=(views, dim))) @ mixing + shift for _ in range(count)]


def test_frechet_equals_scipy() -> None:
    x, y = np.concatenate(objects(40)), np.concatenate(objects(55, shift=0.7, seed=1))
    cov_x, cov_y = np.cov(x.T), np.cov(y.T)
    root = scipy.linalg.sqrtm(cov_x @ cov_y)
    expected = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(cov_x + cov_y - 2 * np.real(root))
    assert frechet_distance(x.mean(0), cov_x, y.mean(0), cov_y) == pytest.approx(expected, rel=1e-6)
    found = distances(gathered("run", objects(40)), gathered("reference", objects(55, shift=0.7, seed=1)))
    assert found["fd"].value == pytest.approx(expected, rel=1e-6)


def kernel_distance(x: list[np.ndarray], y: list[np.ndarray]) -> float:
    """By direct sums over pairs of pictures; pictures of one object are no pair."""
    means = []
    for first, second, one in ((x, x, True), (y, y, True), (x, y, False)):
        pairs = [
            (a @ b / len(a) + 1) ** 3
            for i, own in enumerate(first)
            for j, other in enumerate(second)
            if not one or i != j
            for a in own
            for b in other
        ]
        means.append(sum(pairs) / len(pairs))
    return means[0] + means[1] - 2 * means[2]


@pytest.mark.parametrize("views", [1, 3])
def test_kernel_equals_direct_sums(views: int) -> None:
    x, y = objects(35, views), objects(33, views, shift=0.7, seed=1)
    found = distances(gathered("run", x), gathered("reference", y))["kd"]
    assert found.value == pytest.approx(kernel_distance(x, y), rel=1e-6)
    assert found.low < found.value < found.high


def test_a_resampling_is_that_of_the_blocks_themselves() -> None:
    x, y = gathered("x", objects(5)).blocks(), gathered("y", objects(4, seed=1)).blocks()
    twice = [x[0], x[0], x[3]]
    weights, ones = np.array([2, 0, 0, 1, 0]), np.ones(4, np.int64)
    direct = FrechetSums(twice, y).distance(np.ones(3, np.int64), ones)
    assert FrechetSums(x, y).distance(weights, ones) == pytest.approx(direct, rel=1e-9)
    direct = KernelSums(twice, y).distance(np.ones(3, np.int64), ones)  # both copies have the number of one object
    assert KernelSums(x, y).distance(weights, ones) == pytest.approx(direct, rel=1e-9)


def test_the_kernel_distance_is_unbiased_and_the_frechet_interval_takes_its_bias_off() -> None:
    kernel, low, high, naive = [], [], [], []
    for trial in range(60):
        found = distances(
            gathered("run", objects(40, seed=2 * trial + 10)), gathered("reference", objects(40, seed=2 * trial + 11))
        )
        kernel.append(found["kd"].value)
        naive.append(found["fd"].value)
        low.append(found["fd"].low)
        high.append(found["fd"].high)
    error = np.std(kernel, ddof=1) / np.sqrt(60)
    assert abs(np.mean(kernel)) < 3 * error
    assert min(naive) > 0  # of equal distributions: what a plain figure reads as a difference
    centres = (np.array(low) + np.array(high)) / 2
    assert abs(np.mean(centres)) < 0.5 * np.mean(naive)


def test_intervals_cover_the_truth() -> None:
    truth = 6 * 0.7**2  # equal covariances, means 0.7 apart in six numbers
    hits = 0
    for trial in range(50):
        x, y = objects(60, seed=2 * trial + 10), objects(60, shift=0.7, seed=2 * trial + 11)
        found = distances(gathered("run", x), gathered("reference", y))["fd"]
        hits += found.low < truth < found.high
    assert hits >= 40


def test_small_samples_are_refused_by_name() -> None:
    few, many = gathered("the run", objects(9)), gathered("the reference", objects(30))
    refused = distances(few, many)
    assert refused["fd"] == refused["kd"]
    assert refused["kd"] == Distance(reason="the run has 9 objects; distances between sets want at least 10")
    wide = distances(gathered("the run", objects(12, dim=50)), gathered("the reference", objects(30, dim=50)))
    assert wide["kd"].value is not None
    assert wide["fd"] == Distance(
        reason="the run has 48 pictures; the Fréchet distance of features of 50 numbers wants at least 51"
    )
    with pytest.raises(ValueError, match="mixed has features of 6 and 5 numbers"):
        gathered("mixed", [objects(1)[0], objects(1, dim=5)[0]])
