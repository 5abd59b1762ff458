"""Show assets side by side in a report, each as image and views or a video: `strip`, `best_to_worst`."""

from __future__ import annotations

import numpy as np

from eval.page import escape
from eval.score_columns import measure_of
from eval.scored_run import ScoredRun

ROWS = 6
"""Assets of each sheet."""


def strip(run: ScoredRun, row: int) -> str:
    """The pictures of one asset, or its video where it is no asset of `im3d generate`; empty where unreachable."""
    shown = "".join(f'<img src="{source}" alt="" loading="lazy">' for source in run.pictures(row))
    video = run.video(row)
    if video:
        shown = f'<video src="{video}" preload="metadata" muted loop playsinline></video>'
    return f'<span class="strip">{shown}</span>'


def best_to_worst(run: ScoredRun, by: str | None) -> str:
    """The best, the middle and the worst assets by a score, each a button that opens it; empty without scores."""
    if by is None or not len(run):
        return ""
    known = [row for row in run.ranked(by) if np.isfinite(run.scores[by][row])]
    count = min(ROWS, max(1, len(known) // 3))
    starts = {"Best": 0, "Median": (len(known) - count) // 2, "Worst": len(known) - count} if known else {}
    sheets = "".join(
        f'<h3>{name}</h3>\n<div class="sheet">'
        + "".join(_button(run, known[place], place, by) for place in range(start, start + count))
        + "</div>"
        for name, start in starts.items()
    )
    shown = "" if run.files else " Reference image, then the 3D asset at four azimuths."
    return f'<p class="soft">By {escape(measure_of(by).title)}.{shown}</p>\n{sheets}'


def _button(run: ScoredRun, row: int, place: int, by: str) -> str:
    """`place` is the asset's rank."""
    score, prompt = measure_of(by).text(run.scores[by][row]), escape(run.prompts[row]) or escape(run.prompt_ids[row])
    return (
        f'<button type="button" class="sheet-row" data-place="{place}">{strip(run, row)}'
        f'<span class="said"><b class="number">{score}</b> {prompt}</span></button>\n'
    )
