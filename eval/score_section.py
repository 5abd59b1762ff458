"""Write the scores of a run as a section of its report: `score_section`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from eval.charts import histogram
from eval.page import escape, table
from eval.score_columns import GROUPS, RANK, measure_of
from eval.scored_run import Evaluation, ScoredRun
from eval.statistics import summarise

PRECISION_AT = (1, 5, 10)
MAX_MESSAGE = 160
_SCORE_HEAD = ("score", "better", "assets", "mean ± std", "95% interval of the mean", "5%", "median", "95%")
_RANK_HEAD = ("rank of the own prompt", "assets", *(f"R-precision@{k}" for k in PRECISION_AT), "median rank")


def score_section(run: ScoredRun, other: ScoredRun | None) -> str:
    """A table and a histogram of each score, by group; `other` as a line where it has the same column."""
    if not run.scores:
        return "" if not len(run) else '<p class="soft">No scores: im3d evaluate --run judges the assets.</p>'
    parts = [_evaluations(run.evaluations)]
    for group, caption in GROUPS.items():
        own = {column: values for column, values in run.scores.items() if measure_of(column).group == group}
        if own:
            parts.append(_ranks(caption, own) if group == RANK else _figures(caption, own))
            parts.append(_charts(own, other))
    note = f"Line: {escape(other.label)}. " if other else ""
    parts.append(f'<p class="soft small">{note}Dashed: median.</p>')
    return "".join(parts)


def _evaluations(evaluations: Sequence[Evaluation]) -> str:
    """What every evaluation judged by, and what it could not score."""
    if not evaluations:
        return ""
    rows = [(one.protocol, *_protocol_cells(one), f"{one.scored:,}", f"{len(one.dead):,}") for one in evaluations]
    head = ("protocol", "views", "models", "also", "scored", "not scored")
    judged = table("Evaluations by im3d evaluate", head, rows, 4)
    counted = Counter((one.protocol, letter.kind) for one in evaluations for letter in one.dead)
    examples = {(one.protocol, letter.kind): letter.message for one in evaluations for letter in one.dead}
    letters = [(*what, examples[what][:MAX_MESSAGE], f"{count:,}") for what, count in counted.most_common()]
    head = ("protocol", "reason", "for example", "assets")
    return judged + (table("Assets that an evaluation could not score", head, letters, 3) if letters else "")


def _protocol_cells(evaluation: Evaluation) -> tuple[str, str, str]:
    """The statement of a protocol in short: views, models, what else was measured."""
    views = evaluation.statement.get("views", {})
    seen = f"{views['num_views']} of {views['size']} px, background {views['background']:g}" if views else "—"
    return seen, ", ".join(evaluation.statement.get("models", {})), ", ".join(evaluation.statement.get("measures", {}))


def _figures(caption: str, columns: Mapping[str, NDArray[np.float64]]) -> str:
    rows = []
    for column, values in columns.items():
        known, measure = values[np.isfinite(values)], measure_of(column)
        better = "lower" if measure.low else "higher"
        if not len(known):
            rows.append((measure.title, better, "0", *("—",) * 5))
            continue
        found, text = summarise(known), measure.text
        points = [text(point) for point in np.percentile(known, [5, 50, 95])]
        mean = f"{text(found.mean)} ± {text(found.std)}"
        rows.append(
            (measure.title, better, f"{found.count:,}", mean, f"{text(found.low)} to {text(found.high)}", *points)
        )
    return table(caption, _SCORE_HEAD, rows, 2)


def _ranks(caption: str, columns: Mapping[str, NDArray[np.float64]]) -> str:
    rows = []
    for column, values in columns.items():
        known = values[np.isfinite(values)]
        shares = (f"{(known < k).mean():.1%}" if len(known) else "—" for k in PRECISION_AT)
        middle = f"{np.median(known):g}" if len(known) else "—"
        rows.append((measure_of(column).title, f"{len(known):,}", *shares, middle))
    return table(caption, _RANK_HEAD, rows)


def _charts(columns: Mapping[str, NDArray[np.float64]], other: ScoredRun | None) -> str:
    figures = ""
    for column, values in columns.items():
        title = measure_of(column).title
        chart = histogram(title, values, other.scores.get(column) if other else None)
        figures += f"<figure><figcaption>{escape(title)}</figcaption>{chart}</figure>"
    return f'<div class="charts">{figures}</div>'
