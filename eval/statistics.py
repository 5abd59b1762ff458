"""Summarise scores by means with bootstrap intervals, and compare two runs in pairs: `summarise`, `compare`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
MAX_RESAMPLED = 20_000
DRAWS_AT_ONCE = 1 << 20
CONFIDENCE = 0.95


@dataclass(kw_only=True, slots=True)
class Summary:
    """A score over prompts: `std` is the sample's (n - 1; nan for one prompt), `low` and `high` bound the mean."""

    count: int
    mean: float
    std: float
    low: float
    high: float


@dataclass(kw_only=True, slots=True)
class Comparison:
    """Run a minus run b over the prompts of both.

    `difference` is the mean difference with its bootstrap interval `low`, `high`; `p_t` and `p_wilcoxon` are
    two-sided p-values of the paired t-test and the signed-rank test; `effect` is Cohen's d_z, mean / standard
    deviation of the differences.
    """

    count: int
    difference: float
    low: float
    high: float
    p_t: float
    p_wilcoxon: float
    effect: float


def bootstrap_interval(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Percentile interval of the mean of `values` [N] at CONFIDENCE, a bounded number of draws in memory.

    From MAX_RESAMPLED values on it is the normal interval, which the bootstrap's has then become.
    """
    count = len(values)
    if count > MAX_RESAMPLED:
        from scipy.special import ndtri

        mean, half = values.mean(), ndtri((1 + CONFIDENCE) / 2) * values.std(ddof=1) / np.sqrt(count)
        return float(mean - half), float(mean + half)
    random, rows = np.random.default_rng(seed), max(1, DRAWS_AT_ONCE // count)
    sizes = [min(rows, RESAMPLES - start) for start in range(0, RESAMPLES, rows)]
    means = np.concatenate([values[random.integers(0, count, (size, count))].mean(1) for size in sizes])
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(means, [tail, 100 - tail])
    return float(low), float(high)


def summarise(values: Sequence[float] | np.ndarray) -> Summary:
    """The summary of finite `values` [N].

    Raises:
        ValueError: if there are none, or some are not finite.
    """
    values = _finite(values)
    low, high = bootstrap_interval(values)
    std = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
    return Summary(count=len(values), mean=float(values.mean()), std=std, low=low, high=high)


def compare(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> Comparison:
    """The paired comparison of `a` with `b`, both [N] and in the same order.

    Raises:
        ValueError: if lengths differ, there are fewer than two pairs, or values are not finite.
    """
    from scipy import stats

    a, b = _finite(a), _finite(b)
    if len(a) != len(b) or len(a) < 2:
        raise ValueError(f"{len(a)} and {len(b)} values; a paired comparison wants the same prompts, at least 2")
    difference = a - b
    low, high = bootstrap_interval(difference)
    mean, std = float(difference.mean()), float(difference.std(ddof=1))
    if not difference.any():
        return Comparison(count=len(a), difference=0.0, low=0.0, high=0.0, p_t=1.0, p_wilcoxon=1.0, effect=0.0)
    error = std / np.sqrt(len(a))
    p_t = float(2 * stats.t.sf(abs(mean) / error, len(a) - 1)) if error else 0.0
    return Comparison(
        count=len(a),
        difference=mean,
        low=low,
        high=high,
        p_t=p_t,
        p_wilcoxon=float(stats.wilcoxon(difference).pvalue),  # type: ignore[union-attr]
        effect=mean / std if std else float(np.copysign(np.inf, mean)),
    )


def by_prompt(prompts: Iterable[str], values: Iterable[float]) -> dict[str, float]:
    """The mean of each prompt's values, so that a prompt with many seeds counts once."""
    gathered: dict[str, list[float]] = {}
    for prompt, value in zip(prompts, values, strict=True):
        gathered.setdefault(prompt, []).append(value)
    return {prompt: float(np.mean(own)) for prompt, own in gathered.items()}


def prompt_means(keys: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `by_prompt`, by arrays: the different keys [P], sorted, and the mean of each one's values; nan is no value."""
    known = np.isfinite(values)
    found, places, counts = np.unique(keys[known], return_inverse=True, return_counts=True)
    return found, np.bincount(places, values[known], len(found)) / np.maximum(counts, 1)


def _finite(values: Sequence[float] | np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if not len(values) or not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise ValueError(f"{len(values)} values, {bad} not finite; leave out assets without a score by name")
    return values
