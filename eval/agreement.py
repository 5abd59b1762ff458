"""Measure how sure answers are (Wilson's interval, Krippendorff's alpha): `wilson_interval`, `krippendorff_alpha`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import NormalDist

from eval.statistics import CONFIDENCE


def wilson_interval(wins: float, count: int) -> tuple[float, float]:
    """Interval of a share at CONFIDENCE (E. B. Wilson, JASA 1927), inside [0, 1] even for 0 or all wins.

    Args:
        wins: in [0, count]; a tie may count as half a win.
        count: questions, >= 0; without any the interval is (0, 1).

    Raises:
        ValueError: when `wins` lies outside [0, count].
    """
    if not 0 <= wins <= count:
        raise ValueError(f"{wins} wins of {count}; wins must lie between 0 and the count")
    if not count:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    share, weight = wins / count, z * z / count
    centre = (share + weight / 2) / (1 + weight)
    half = z * (share * (1 - share) / count + weight / (4 * count)) ** 0.5 / (1 + weight)
    return max(0.0, centre - half), min(1.0, centre + half)


def krippendorff_alpha(units: Iterable[Sequence[str]]) -> float:
    """Nominal alpha: 1 is full agreement, 0 that of chance, below 0 systematic disagreement.

    K. Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), section C: with o the coincidences of
    values within a unit and n their sums, alpha = 1 - (n - 1) * sum_{c != k} o_ck / sum_{c != k} n_c n_k.

    Args:
        units: the values that each unit was given, in any order; units with fewer than two are left out.

    Returns:
        alpha, or nan where it is not defined: fewer than two pairable values, or all values the same.
    """
    totals: Counter[str] = Counter()
    disagreement = 0.0
    for unit in units:
        if len(unit) < 2:
            continue
        values = Counter(unit)
        totals.update(values)
        disagreement += sum(many * (len(unit) - many) for many in values.values()) / (len(unit) - 1)
    count = totals.total()
    by_chance = sum(many * (count - many) for many in totals.values())
    return 1 - (count - 1) * disagreement / by_chance if by_chance else float("nan")
