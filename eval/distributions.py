"""Tell how far two sets of pictures are from each other: `distances` by Fréchet and kernel distance of features.

Pictures of one object are not independent. So the kernel distance pairs pictures of different objects alone, which
keeps it unbiased, and objects go into at most MAX_BLOCKS blocks, which are resampled as wholes.
Intervals are the basic bootstrap's, [2 d - q_high, 2 d - q_low], which also takes off the bias that resampling shows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval.statistics import CONFIDENCE

MAX_BLOCKS = 32
LEAST_OBJECTS = 10
"""Objects that either set must have."""
KERNEL_PICTURES = 10_000
"""Pictures of a set that the kernel distance takes at most, evenly spread; its time grows with their square."""
FRECHET_RESAMPLES, KERNEL_RESAMPLES = 200, 1000
Features = NDArray[np.floating]
"""[N,D]."""
Weights = NDArray[np.int64]
"""[B]: how often each block counts."""


@dataclass(kw_only=True, slots=True)
class Distance:
    """A distance with its interval; without a value, `reason` says why not."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str = ""


@dataclass(kw_only=True, slots=True)
class Block:
    """Features [N,D] of the pictures of some objects, and the number [N] of each picture's object."""

    features: Features
    objects: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.features)


class FeatureSet:
    """Features of a set of objects, gathered object by object; `name` is what it is called in errors."""

    def __init__(self, name: str) -> None:
        self.name, self.objects = name, 0
        self._rows: list[Features] = []

    @property
    def dim(self) -> int:
        """How many numbers a picture's features have; 0 without pictures."""
        return self._rows[0].shape[1] if self._rows else 0

    def add(self, features: Features) -> None:
        """The features [V,D] of one object's pictures.

        Raises:
            ValueError: when D is not that of the objects before.
        """
        if self._rows and features.shape[1] != self._rows[0].shape[1]:
            raise ValueError(f"{self.name} has features of {self._rows[0].shape[1]} and {features.shape[1]} numbers")
        self._rows.append(features)
        self.objects += 1

    def blocks(self) -> list[Block]:
        """The objects dealt out into at most MAX_BLOCKS blocks."""
        return [self._block(range(first, self.objects, MAX_BLOCKS)) for first in range(min(MAX_BLOCKS, self.objects))]

    def _block(self, members: Iterable[int]) -> Block:
        members = list(members)
        features = np.concatenate([self._rows[member] for member in members]).astype(np.float64)
        return Block(features=features, objects=np.repeat(members, [len(self._rows[member]) for member in members]))


def distances(run: FeatureSet, reference: FeatureSet, seed: int = 0) -> dict[str, Distance]:
    """``fd`` and ``kd`` of two sets, each with its interval, or the reason why there is none.

    The Fréchet distance wants more pictures than features have numbers, or its covariances are singular.
    """
    if reason := _too_few(run, reference):
        return {name: Distance(reason=reason) for name in ("fd", "kd")}
    x, y = run.blocks(), reference.blocks()
    found = {"kd": _bootstrapped(KernelSums(_thinned(x), _thinned(y)), KERNEL_RESAMPLES, seed)}
    least = x[0].features.shape[1] + 1
    for one, blocks in ((run, x), (reference, y)):
        if (count := sum(map(len, blocks))) < least:
            found["fd"] = Distance(reason=f"{one.name} has {count} pictures; the Fréchet distance of features of "
                                          f"{least - 1} numbers wants at least {least}")  # fmt: skip
            return found
    return {"fd": _bootstrapped(FrechetSums(x, y), FRECHET_RESAMPLES, seed)} | found


def _too_few(*sets: FeatureSet) -> str:
    for one in sets:
        if one.objects < LEAST_OBJECTS:
            return f"{one.name} has {one.objects} objects; distances between sets want at least {LEAST_OBJECTS}"
    return ""


def frechet_distance(mean_x: Features, cov_x: Features, mean_y: Features, cov_y: Features) -> float:
    """|mu_x - mu_y|^2 + tr(C_x + C_y - 2 (C_x C_y)^(1/2)) (Heusel et al. 2017), >= 0 up to rounding."""
    values, vectors = np.linalg.eigh(cov_x)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ cov_y @ root).clip(0)).sum()
    return float(np.square(mean_x - mean_y).sum() + np.trace(cov_x) + np.trace(cov_y) - 2 * cross)


class FrechetSums:
    """Sums over blocks from which the Fréchet distance of any resampling follows; covariances by n - 1."""

    def __init__(self, x: list[Block], y: list[Block]) -> None:
        shift = np.concatenate([block.features for block in y]).mean(0)  # small numbers keep their digits
        self.sums = [[self._sums(block.features - shift) for block in blocks] for blocks in (x, y)]
        self.counts = (len(x), len(y))

    def distance(self, weights_x: Weights, weights_y: Weights) -> float:
        """Of blocks that count so often each."""
        return frechet_distance(*self._moments(0, weights_x), *self._moments(1, weights_y))

    @staticmethod
    def _sums(features: Features) -> tuple[int, Features, Features]:
        return len(features), features.sum(0), features.T @ features

    def _moments(self, which: int, weights: Weights) -> tuple[Features, Features]:
        taken = [(weight, sums) for weight, sums in zip(weights.tolist(), self.sums[which], strict=True) if weight]
        count = sum(weight * sums[0] for weight, sums in taken)
        mean = np.sum([weight * sums[1] for weight, sums in taken], 0) / count
        square = np.zeros((len(mean), len(mean)))
        for weight, sums in taken:
            square += weight * sums[2]
        return mean, (square - count * np.outer(mean, mean)) / (count - 1)


class KernelSums:
    """Sums of k(a, b) = (a.b / D + 1)^3 over pairs of blocks, from which the squared MMD of any resampling follows.

    With one picture an object it is the unbiased estimator of Binkowski et al. (2018), KID. Pictures of one object are
    no pair, and neither are copies of one block.
    """

    def __init__(self, x: list[Block], y: list[Block]) -> None:
        self.within = [_within(blocks) for blocks in (x, y)]
        self.between = np.array([[_kernel(a, b).sum() for b in y] for a in x])
        self.sizes = [np.array([len(block) for block in blocks], np.float64) for blocks in (x, y)]
        self.counts = (len(x), len(y))

    def distance(self, weights_x: Weights, weights_y: Weights) -> float:
        """Of blocks that count so often each."""
        pairs = (weights_x @ self.sizes[0]) * (weights_y @ self.sizes[1])
        inner = [_ratio(*self.within[which], weights) for which, weights in enumerate((weights_x, weights_y))]
        return float(sum(inner) - 2 * (weights_x @ self.between @ weights_y) / pairs)


def _kernel(a: Block, b: Block) -> Features:
    return (a.features @ b.features.T / a.features.shape[1] + 1) ** 3


def _within(blocks: list[Block]) -> tuple[Features, Features]:
    """By pairs of blocks [B,B] the kernel's sum over pictures of different objects, and how many pairs these are."""
    sums, pairs = np.zeros((len(blocks), len(blocks))), np.zeros((len(blocks), len(blocks)))
    for i, a in enumerate(blocks):
        for j, b in enumerate(blocks):
            unlike = a.objects[:, None] != b.objects[None]
            sums[i, j], pairs[i, j] = (_kernel(a, b) * unlike).sum(), unlike.sum()
    return sums, pairs


def _ratio(sums: Features, pairs: Features, weights: Weights) -> float:
    """The mean over pairs, of blocks that count so often each."""
    times = np.outer(weights, weights).astype(np.float64)
    np.fill_diagonal(times, weights)
    return float((times * sums).sum() / (times * pairs).sum())


def _thinned(blocks: list[Block]) -> list[Block]:
    """At most KERNEL_PICTURES in all, evenly spread over each block."""
    step = -(-sum(map(len, blocks)) // KERNEL_PICTURES)
    return [Block(features=block.features[::step], objects=block.objects[::step]) for block in blocks]


def _bootstrapped(sums: FrechetSums | KernelSums, resamples: int, seed: int) -> Distance:
    """The distance of all blocks, with its interval."""
    random = np.random.default_rng(seed)
    value = sums.distance(*(np.ones(count, np.int64) for count in sums.counts))
    draws = [sums.distance(*(random.multinomial(n, np.full(n, 1 / n)) for n in sums.counts)) for _ in range(resamples)]
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(draws, [tail, 100 - tail])
    return Distance(value=value, low=float(2 * value - high), high=float(2 * value - low))


def gathered(name: str, rows: Iterable[Features]) -> FeatureSet:
    """A set of the features [V,D] of each object."""
    found = FeatureSet(name)
    for features in rows:
        found.add(features)
    return found
