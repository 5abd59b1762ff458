"""Agreement and intervals against published examples and an independent implementation."""

from __future__ import annotations

import math

import pytest
from scipy.stats import binomtest

from eval.agreement import krippendorff_alpha, wilson_interval

PUBLISHED = [
    (("0100000010", "1110010000"), 0.095),
    (("aabbdcccedda", "babbbcccedd" + "d"), 0.692),
    (("123321412...", "1233224125.3", ".3332342251.", "12332441251."), 0.743),
]
"""K. Krippendorff, "Computing Krippendorff's Alpha-Reliability", 2011, sections A, B and C: each observer's values of
the units, a dot where there is none, and alpha as printed there."""


@pytest.mark.parametrize(("observers", "alpha"), PUBLISHED)
def test_alpha_of_published_examples(observers: tuple[str, ...], alpha: float) -> None:
    units = [[value for value in unit if value != "."] for unit in zip(*observers, strict=True)]
    assert krippendorff_alpha(units) == pytest.approx(alpha, abs=5e-4)


def test_alpha_at_its_ends() -> None:
    assert krippendorff_alpha(["aaa", "bbb"]) == 1
    assert krippendorff_alpha(["ab", "ab", "ba"]) < 0
    assert math.isnan(krippendorff_alpha(["aa", "aa"]))
    assert math.isnan(krippendorff_alpha(["a", "b"]))


@pytest.mark.parametrize(("wins", "count"), [(0, 10), (8, 10), (39, 39), (117, 195), (1, 1)])
def test_wilson_equals_scipy(wins: int, count: int) -> None:
    reference = binomtest(wins, count).proportion_ci(method="wilson")
    assert wilson_interval(wins, count) == pytest.approx((reference.low, reference.high), abs=1e-12)


def test_wilson_without_questions_and_of_impossible_wins() -> None:
    assert wilson_interval(0, 0) == (0, 1)
    with pytest.raises(ValueError, match="11 wins of 10"):
        wilson_interval(11, 10)
