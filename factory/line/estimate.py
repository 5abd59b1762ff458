"""Estimate the time and cost of a whole table from a sample of its prompts that ran: `estimate`.

The sample is drawn without replacement, so that the interval of a sum over all rows is Student's with the factor
1 - n / N of a finite population (Cochran, Sampling Techniques, 2.5): a sample of everything leaves no doubt. The run
lasts as long as its slowest stage; the others work meanwhile. A row counts with the seconds that it took in the sample:
one made a row at a time does not show how actors slow each other down, nor what batches gain; one made by the run's own
actors does, where it is larger than the slowest stage's pool.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from eval.agreement import wilson_interval
from factory.ledger.keys import digest
from factory.line.cost import CostConfig, Usage, usage
from factory.line.placement import Pool
from recon.user_error import UserError

CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """An estimate and its 95% interval."""

    low: float
    mid: float
    high: float

    def plus(self, offset: float) -> Range:
        """Every bound raised by `offset`."""
        return Range(low=self.low + offset, mid=self.mid + offset, high=self.high + offset)

    def times(self, factor: float) -> Range:
        """Every bound times `factor` >= 0."""
        return Range(low=self.low * factor, mid=self.mid * factor, high=self.high * factor)


@dataclass(kw_only=True, slots=True)
class Sample:
    """What was seen of n prompts, of which some made an asset.

    A prompt that failed is counted as if it had taken as long as the others.
    """

    prompts: int
    seconds: Mapping[str, Sequence[float]]
    """By stage, of each asset."""
    loading: float
    """Seconds until the slowest stage had its models."""
    sizes: Sequence[float]
    """Bytes of each asset: its files, and its share of the tables."""
    forwards: Sequence[float]
    """Network evaluations of each asset, guidance counted twice."""


@dataclass(kw_only=True, slots=True)
class Estimate:
    """A run over `prompts` rows: seconds, dollars and bytes."""

    prompts: int
    sampled: int
    share: Range
    """Yield in [0, 1]."""
    slowest: str
    """The stage that the run waits for."""
    seconds: Range
    actors: Mapping[str, int]
    """By stage."""
    dollars: Range
    """Of the actors from start to end, loading and idling included."""
    model_dollars: Range
    """Of the time in model code alone."""
    size: Range
    storage_dollars: Range
    """A month."""
    forwards: Range


def choose(ids: Sequence[str], count: int) -> list[str]:
    """`count` ids, or all where there are fewer: by their hash, so the same each time and in any order.

    Raises:
        ValueError: when fewer than two are asked for or there.
    """
    if min(count, len(ids)) < 2:
        raise UserError(f"a dry run of {min(count, len(ids))} prompts tells no spread; give at least 2")
    return sorted(ids, key=lambda name: digest("dry run", name))[:count]


def total(values: Sequence[float], rows: int) -> Range:
    """The sum over `rows` rows from the values [n] of a random sample of them, 2 <= n <= rows."""
    from scipy.special import stdtrit

    count = len(values)
    mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
    quantile = float(stdtrit(count - 1, (1 + CONFIDENCE) / 2))
    half = quantile * deviation / count**0.5 * max(0.0, 1 - count / rows) ** 0.5
    return Range(low=rows * max(0.0, mean - half), mid=rows * mean, high=rows * (mean + half))


def estimate(sample: Sample, rows: int, prices: CostConfig, pools: Mapping[str, Pool]) -> Estimate:
    """The whole table's figures.

    Args:
        rows: prompts in the table, at least as many as were sampled.
        pools: of each stage in `sample.seconds`; one that grows has all of its `max_actors`.

    Raises:
        ValueError: when fewer than two of the sampled prompts made an asset.
    """
    made = len(sample.sizes)
    if made < 2:
        raise UserError(f"{made} of {sample.prompts} sampled prompts made an asset; an estimate wants at least 2")
    totals = {stage: total(values, rows) for stage, values in sample.seconds.items()}
    actors = {stage: pools[stage].max_actors or pools[stage].actors for stage in totals}
    each = {stage: totals[stage].times(1 / actors[stage]) for stage in totals}
    slowest = max(each, key=lambda stage: each[stage].mid)
    filling = sum(float(np.mean(values)) for stage, values in sample.seconds.items() if stage != slowest)
    seconds = each[slowest].plus(sample.loading + filling)
    low, high = wilson_interval(made, sample.prompts) if sample.prompts < rows else (made / rows, made / rows)
    share = Range(low=low, mid=made / sample.prompts, high=high)
    size = _product(total(sample.sizes, rows), share)
    return Estimate(
        prompts=rows,
        sampled=sample.prompts,
        share=share,
        slowest=slowest,
        seconds=seconds,
        actors=actors,
        dollars=seconds.times(_held(pools, actors).dollars(prices)),
        model_dollars=_sum([totals[stage].times(usage(1.0, pools[stage]).dollars(prices)) for stage in totals]),
        size=size,
        storage_dollars=size.times(prices.storage_gb_month_price / 1e9),
        forwards=total(sample.forwards, rows),
    )


def _held(pools: Mapping[str, Pool], actors: Mapping[str, int]) -> Usage:
    """What all actors hold in a second of the run."""
    held = Usage()
    for stage, count in actors.items():
        held += usage(float(count), pools[stage])
    return held


def _sum(ranges: Sequence[Range]) -> Range:
    return Range(
        low=sum(one.low for one in ranges), mid=sum(one.mid for one in ranges), high=sum(one.high for one in ranges)
    )


def _product(a: Range, b: Range) -> Range:
    return Range(low=a.low * b.low, mid=a.mid * b.mid, high=a.high * b.high)
