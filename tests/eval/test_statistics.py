"""Statistics of scores against scipy and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from eval.statistics import bootstrap_interval, by_prompt, compare, summarise


def test_summary_is_mean_sample_deviation_and_interval() -> None:
    values = np.random.default_rng(0).normal(30, 2, 400)
    found = summarise(values)
    assert (found.count, found.mean) == (400, pytest.approx(values.mean()))
    assert found.std == pytest.approx(stats.tstd(values))
    low, high = stats.t.interval(0.95, 399, values.mean(), stats.sem(values))
    assert (found.low, found.high) == (pytest.approx(low, abs=0.03), pytest.approx(high, abs=0.03))
    assert math.isnan(summarise([3.0]).std)


def test_bootstrap_agrees_with_scipy_and_repeats() -> None:
    values = np.random.default_rng(1).exponential(5, 60)
    reference = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=4000, rng=2).confidence_interval
    assert bootstrap_interval(values) == pytest.approx((reference.low, reference.high), abs=0.15)
    assert bootstrap_interval(values) == bootstrap_interval(values)


def test_interval_of_many_values_is_the_normal_one() -> None:
    values = np.random.default_rng(4).exponential(5, 50_000)
    expected = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
    assert bootstrap_interval(values) == pytest.approx(expected, abs=1e-3)
    assert bootstrap_interval(values[:20_000]) == pytest.approx(expected, abs=0.1)


def test_paired_comparison_is_scipys() -> None:
    random = np.random.default_rng(3)
    b = random.normal(25, 4, 50)
    a = b + random.normal(0.5, 1, 50)
    found = compare(a, b)
    assert found.difference == pytest.approx((a - b).mean())
    assert found.p_t == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert found.p_wilcoxon == pytest.approx(stats.wilcoxon(a, b).pvalue)
    assert found.effect == pytest.approx(stats.ttest_rel(a, b).statistic / math.sqrt(50))
    assert found.low < found.difference < found.high
    assert compare(b, b).p_t == 1


def test_seeds_of_a_prompt_count_once() -> None:
    assert by_prompt(["a", "b", "a"], [1.0, 5.0, 3.0]) == {"a": 2.0, "b": 5.0}


def test_unusable_values_are_named() -> None:
    with pytest.raises(ValueError, match="2 values, 1 not finite"):
        summarise([1.0, float("nan")])
    with pytest.raises(ValueError, match="3 and 2 values"):
        compare([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="0 values"):
        summarise([])
