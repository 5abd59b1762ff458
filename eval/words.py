"""Count which words of prompts go with failures and low scores, verbs of motion above all: `count_words`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval.agreement import wilson_interval

MIN_PROMPTS = 5
"""Words of fewer prompts say nothing."""
MOTION_VERBS = frozenset(
    """
    bouncing charging chasing climbing crawling dancing diving drifting driving falling fighting floating flying
    galloping gliding hopping jogging juggling jumping kicking leaping marching pouncing prowling racing riding
    rolling rowing running sailing skateboarding skating skiing sliding snowboarding soaring spinning sprinting
    strolling surfing swimming swinging throwing trotting tumbling twirling walking waving wrestling
    """.split()  # noqa: SIM905
)
"""Present participles alone: `fly`, `swing` and `walk` are things too."""
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_COMMON = frozenset(
    "a an and are as at by for from has have in into is it its of on or that the their to with".split()  # noqa: SIM905
)


@dataclass(kw_only=True, slots=True)
class WordCount:
    """How prompts with a word fared: `share` failed in [0, 1] with Wilson's 95% interval, and their mean score."""

    word: str
    prompts: int
    failed: int
    share: float
    low: float
    high: float
    mean_score: float
    """nan where none has a score."""
    z: float
    """Mean score of its assets minus that of all, in standard errors; nan where it is not known."""


def words_of(prompt: str) -> set[str]:
    """The different words of a prompt, in lower case, without articles and prepositions."""
    return set(_WORD.findall(prompt.casefold())) - _COMMON


def has_motion(prompt: str) -> bool:
    """Whether a prompt has a verb that describes motion."""
    return not words_of(prompt).isdisjoint(MOTION_VERBS)


def count_words(prompts: Sequence[str], failed: Sequence[bool], scores: NDArray[np.float64]) -> list[WordCount]:
    """A count of each word that MIN_PROMPTS prompts have, most telling first: by the interval's lower bound.

    Args:
        prompts: [N]. failed: [N]. scores: [N], nan for what has none.
    """
    places: dict[str, list[int]] = {}
    for row, prompt in enumerate(prompts):
        for word in words_of(prompt):
            places.setdefault(word, []).append(row)
    bad = np.asarray(failed, bool)
    counts = [_count(word, rows, bad, scores) for word, rows in places.items() if len(rows) >= MIN_PROMPTS]
    return sorted(counts, key=lambda count: (-count.low, -count.share, count.word))


def count_motion(prompts: Sequence[str], failed: Sequence[bool], scores: NDArray[np.float64]) -> list[WordCount]:
    """Two counts: of prompts with a verb of motion, and of all others; only those that there are."""
    bad, moving = np.asarray(failed, bool), np.array([has_motion(prompt) for prompt in prompts], bool)
    groups = (("with a verb of motion", moving), ("without", ~moving))
    return [_count(name, np.flatnonzero(rows), bad, scores) for name, rows in groups if rows.any()]


def _count(word: str, rows: Iterable[int], bad: NDArray[np.bool_], scores: NDArray[np.float64]) -> WordCount:
    rows = np.asarray(rows)
    failed, own = int(bad[rows].sum()), scores[rows]
    own, known = own[~np.isnan(own)], scores[~np.isnan(scores)]
    low, high = wilson_interval(failed, len(rows))
    spread = float(known.std(ddof=1)) if len(known) > 1 else 0.0
    mean = float(own.mean()) if len(own) else float("nan")
    z = (mean - float(known.mean())) / (spread / np.sqrt(len(own))) if len(own) and spread else float("nan")
    return WordCount(
        word=word, prompts=len(rows), failed=failed, share=failed / len(rows), low=low, high=high, mean_score=mean, z=z
    )
