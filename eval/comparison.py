"""Compare two runs prompt by prompt, as a section of the first one's report: `comparison_section`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eval.charts import histogram
from eval.page import escape, money, table
from eval.score_columns import RANK, measure_of
from eval.scored_run import ScoredRun, why_not_comparable
from eval.sheet import strip
from eval.statistics import Comparison, by_prompt, compare

PAIRS = 5
"""Pairs of assets shown of the largest gains, and of the largest losses."""


@dataclass(kw_only=True, slots=True)
class ScoreComparison:
    """One score of two runs over the prompts that both have; `left_out` prompts have it in one run only."""

    column: str
    means: tuple[float, float]
    result: Comparison
    left_out: int


def shared_columns(run: ScoredRun, other: ScoredRun) -> list[str]:
    """Score columns that both have and that mean the same: of one protocol, or of settings that judge alike.

    Ranks only where they are among the same prompts.
    """
    alike = not why_not_comparable(run, other)
    theirs = {one.name for one in other.evaluations}
    pools = {one.protocol for one in run.evaluations if one.name in theirs}

    return [column for column in run.scores if column in other.scores and _same(column, alike, pools)]


def _same(column: str, alike: bool, pools: set[str]) -> bool:
    """Whether a column means the same in two runs: `alike` by their settings, with `pools` of the same prompts."""
    protocol = column.partition("@")[2]
    if not protocol:
        return alike
    return measure_of(column).group != RANK or protocol in pools


def compare_scores(run: ScoredRun, other: ScoredRun) -> list[ScoreComparison]:
    """Paired comparisons of every shared column with at least two prompts in both; seeds of a prompt are averaged."""
    found = []
    for column in shared_columns(run, other):
        own, theirs = _means(run, column), _means(other, column)
        both = sorted(own.keys() & theirs.keys())
        if len(both) < 2:
            continue
        a, b = [own[name] for name in both], [theirs[name] for name in both]
        found.append(
            ScoreComparison(
                column=column,
                means=(float(np.mean(a)), float(np.mean(b))),
                result=compare(a, b),
                left_out=len(own) + len(theirs) - 2 * len(both),
            )
        )
    return found


def _means(run: ScoredRun, column: str) -> dict[str, float]:
    known = np.flatnonzero(np.isfinite(run.scores[column]))
    return by_prompt([run.prompts[row] for row in known], run.scores[column][known].tolist())


def comparison_section(run: ScoredRun, other: ScoredRun, by: str | None) -> str:
    """The tables, the distribution of differences, and the pairs that differ most by a score."""
    different = why_not_comparable(run, other)
    note = ""
    if different:
        said = f"The line's own scores are not compared, since they were judged otherwise: {'; '.join(different)}."
        note = f'<p class="note">{escape(said)} Evaluate both runs by one protocol: im3d evaluate.</p>'
    scores = compare_scores(run, other)
    parts = [note, _cost_section(run, other), _scores(run, other, scores)]
    if by in shared_columns(run, other):
        parts.append(_pairs(run, other, str(by)))
    return "".join(parts)


def _cost_section(run: ScoredRun, other: ScoredRun) -> str:
    """Yield, time and cost of both."""
    rows = []
    for one in (run, other):
        wanted = len(one) + len(one.dead)
        cells = (f"{len(one):,}", f"{len(one) / wanted:.1%}", f"{int(one.flagged.sum()):,}")
        spent = (_mean(one, "seconds"), _mean(one, "forwards"), _mean(one, "cost_dollars"))
        texts = (f"{spent[0]:.1f}", f"{spent[1]:.1f}", money(spent[2]))
        known = ["—" if np.isnan(value) else text for value, text in zip(spent, texts)]
        rows.append((one.label, *cells, *known))
    head = ("run", "assets", "yield", "flagged", "s an asset", "network evaluations", "cost an asset")
    return table(f"{run.label} and {other.label}", head, rows)


def _mean(run: ScoredRun, name: str) -> float:
    """Of all assets; nan where none has the number."""
    known = run.numbers[name][np.isfinite(run.numbers[name])]
    return float(known.sum()) / len(run) if len(known) else float("nan")


def _scores(run: ScoredRun, other: ScoredRun, scores: Sequence[ScoreComparison]) -> str:
    if not scores:
        return '<p class="soft">No score can be compared: the runs share fewer than 2 scored prompts.</p>'
    head = ("score", "prompts in both", run.label, other.label, "difference", "95% interval", "p (t)", "p (Wilcoxon)")
    caption = f"{run.label} minus {other.label}, prompt by prompt"
    return table(caption, (*head, "d_z", "left out"), [_score_row(one) for one in scores])


def _score_row(one: ScoreComparison) -> tuple[str, ...]:
    found, measure = one.result, measure_of(one.column)
    title = measure.title + (", lower is better" if measure.low else "")
    means = (measure.text(mean) for mean in one.means)
    bounds = f"{measure.text(found.low, '+')} to {measure.text(found.high, '+')}"
    tests = (f"{found.p_t:.3g}", f"{found.p_wilcoxon:.3g}", f"{found.effect:+.2f}")
    return (title, f"{found.count:,}", *means, measure.text(found.difference, "+"), bounds, *tests, f"{one.left_out:,}")


@dataclass(kw_only=True, slots=True)
class _Pair:
    """An asset of either run with one prompt id: their rows, and how much better the first one's score is."""

    gain: float
    mine: int
    theirs: int


def _paired(run: ScoredRun, other: ScoredRun, by: str) -> list[_Pair]:
    """The assets that have the score in both runs, the largest gain first."""
    theirs, sign = {name: row for row, name in enumerate(other.prompt_ids)}, measure_of(by).sign
    pairs = [
        _Pair(
            gain=sign * float(run.scores[by][row] - other.scores[by][theirs[name]]),
            mine=row,
            theirs=theirs[name],
        )
        for row, name in enumerate(run.prompt_ids)
        if name in theirs
    ]
    return sorted((pair for pair in pairs if np.isfinite(pair.gain)), key=lambda pair: -pair.gain)


def _pairs(run: ScoredRun, other: ScoredRun, by: str) -> str:
    """The distribution of differences by asset, and the assets that differ most."""
    pairs, measure = _paired(run, other, by), measure_of(by)
    if not pairs:
        return ""
    gains = np.array([pair.gain for pair in pairs])
    title = f"Difference by asset: {measure.title}"
    wins = f"{run.label} is better in {int((gains > 0).sum()):,} of {len(pairs):,} assets of both"
    shown = {
        "Largest gains": [pair for pair in pairs[:PAIRS] if pair.gain > 0],
        "Largest losses": [pair for pair in pairs[::-1][:PAIRS] if pair.gain < 0],
    }
    sheets = "".join(
        f'<h3>{name}</h3>\n<div class="sheet">{"".join(_pair(run, other, by, pair) for pair in few)}</div>'
        for name, few in shown.items()
        if few
    )
    unseen = f"<p class='soft'>Files of {escape(other.label)} cannot be reached from here.</p>"
    return (
        f'<p>{escape(wins)}.</p><div class="charts"><figure><figcaption>{escape(title)}</figcaption>'
        f"{histogram(title, measure.sign * gains)}</figure></div>{unseen if other.base is None else ''}{sheets}"
    )


def _pair(run: ScoredRun, other: ScoredRun, by: str, pair: _Pair) -> str:
    measure = measure_of(by)
    strips = "".join(
        f'{strip(one, row)}<p class="small"><span class="soft">{escape(one.label)}</span> '
        f"<b>{measure.text(one.scores[by][row])}</b></p>"
        for one, row in ((run, pair.mine), (other, pair.theirs))
    )
    prompt = escape(run.prompts[pair.mine]) or escape(run.prompt_ids[pair.mine])
    difference = measure.text(measure.sign * pair.gain, "+")
    return f'<div class="pair card"><p><b class="number">{difference}</b> {prompt}</p>{strips}</div>\n'
