"""Write the report of a run as one page with an explorer of every asset: `report_page`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from string import Template

import numpy as np

from eval.charts import share_bar
from eval.comparison import comparison_section
from eval.page import Markup, escape, money, table, web_file
from eval.score_columns import measure_of
from eval.score_section import score_section
from eval.scored_run import STAGE_OF_TABLE, ScoredRun
from eval.sheet import best_to_worst
from eval.words import WordCount, count_motion, count_words

WEB_FILES = ("look.css", "report.css", "report.js")
MAX_WORDS = 15


def report_page(run: ScoredRun, other: ScoredRun | None, by: str | None, made: str) -> str:
    """The page as HTML. It lies in the run's folder, with its other files in `report/`.

    Args:
        run: at least one asset or dead letter.
        other: a run to compare with, or None.
        by: the score that ranks, or None without scores.
        made: when, as text.
    """
    sections = {
        "Overview": _overview(run),
        "Scores": score_section(run, other),
        "Best, median, worst": best_to_worst(run, by),
        "Comparison": comparison_section(run, other, by) if other else "",
        "Failures": _failures(run, by),
        "Cost and yield": _cost(run),
    }
    shown = {title: body for title, body in sections.items() if body}
    places = {title: title.split(",")[0].split()[0].lower() for title in shown}
    values = {
        "label": escape(run.label),
        "subtitle": escape(_subtitle(run, made)),
        "links": "".join(f'<a href="#{places[title]}">{title}</a>' for title in shown),
        "sections": "".join(
            f'<section id="{places[title]}"><h2>{title}</h2>\n{body}</section>\n' for title, body in shown.items()
        ),
        "kinds": f'<option value="assets">{len(run):,} assets</option>'
        + f'<option value="failed">{len(run.dead):,} dead letters</option>' * bool(run.dead),
    }
    return Template(web_file("report.html")).substitute(values)


def _subtitle(run: ScoredRun, made: str) -> str:
    names = ("image.model", "video.model", "fit.iterations")
    known = [f"{name} {run.settings[name]}" for name in names if name in run.settings]
    return " · ".join([f"{len(run):,} assets, {len(run.dead):,} dead letters", *known, f"report of {made}"])


def _overview(run: ScoredRun) -> str:
    finished, wanted = len(run), len(run) + len(run.dead)
    dollars = np.nansum(run.numbers["cost_dollars"])
    tiles = [("assets", f"{finished:,}"), ("dead letters", f"{len(run.dead):,}"), ("yield", f"{finished / wanted:.1%}")]
    if np.isfinite(run.numbers["yield_score"]).any():
        tiles.append(("flagged turntables", f"{int(run.flagged.sum()):,}"))
    for name, what, unit in (("seconds", "stage time", " s"), ("forwards", "network evaluations", "")):
        known = run.numbers[name][np.isfinite(run.numbers[name])]
        if len(known):
            tiles.append((f"{what} an asset, median", f"{np.median(known):.1f}{unit}"))
    if dollars:
        tiles += [("cost", money(dollars)), ("cost an asset", money(dollars / finished))]
    return (
        '<dl class="tiles">' + "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in tiles) + "</dl>"
    )


def _failures(run: ScoredRun, by: str | None) -> str:
    """Dead letters by stage, reason and the line of code that raised it; then what words the failed prompts have."""
    causes = [(letter.stage, letter.kind, letter.place) for letter in run.dead]
    examples = {cause: letter.message for cause, letter in zip(reversed(causes), reversed(run.dead))}
    rows = [(*cause, examples[cause][:120], f"{count:,}") for cause, count in Counter(causes).most_common()]
    stages = (
        table("Dead letters", ("stage", "reason", "place", "for example", "rows"), rows, 4)
        if rows
        else "<p>No dead letters.</p>"
    )
    letters = [letter for letter in run.dead if letter.stage != STAGE_OF_TABLE and letter.prompt]
    prompts = [*run.prompts, *(letter.prompt for letter in letters)]
    failed = [*run.flagged.tolist(), *(True for _ in letters)]
    scores = np.concatenate([run.scores[by] if by else np.full(len(run), np.nan), np.full(len(letters), np.nan)])
    motion = _words("Prompts with verbs of motion, and without", "prompts", count_motion(prompts, failed, scores), by)
    words = count_words(prompts, failed, scores)
    overall = sum(failed) / max(len(failed), 1)
    failing = [word for word in words if word.failed and word.share > overall][:MAX_WORDS]
    sign = measure_of(by).sign if by else 1
    poor = sorted((word for word in words if sign * word.z < -2), key=lambda word: sign * word.z)[:MAX_WORDS]
    note = (
        "Failed: a dead letter, or a turntable that the yield gate takes for unusable. "
        "Rows of the table that are no prompts are left out."
    )
    return (
        f'{stages}<p class="soft small">{note}</p>{motion}'
        + _words(f"Words that fail more often than all prompts ({overall:.1%})", "word", failing, by)
        + _words("Words whose assets score worse (2 standard errors and more)", "word", poor, by)
    )


def _words(caption: str, first: str, words: Sequence[WordCount], by: str | None) -> str:
    if not words:
        return ""
    head = (first, "prompts", "failed", "share", "95% interval", *(("mean score", "standard errors") if by else ()))
    rows = []
    for word in words:
        cells = (
            word.word,
            f"{word.prompts:,}",
            f"{word.failed:,}",
            f"{word.share:.1%}",
            f"{word.low:.1%} to {word.high:.1%}",
        )
        score = ("—", "—") if np.isnan(word.mean_score) else (f"{word.mean_score:.4g}", f"{word.z:+.1f}")
        rows.append((*cells, *(score if by else ())))
    return table(caption, head, rows)


def _cost(run: ScoredRun) -> str:
    """Yield and cost of all assets, seconds by stage, network evaluations, and what the last run into it cost."""
    sums = {stage: float(np.nansum(seconds)) for stage, seconds in run.stage_seconds.items()}
    total = sum(sums.values())
    if not total:
        return _calls(run) + run.last_run
    rows = [
        (stage, f"{spent / len(run):.2f}", f"{spent:,.0f}", f"{spent / total:.1%}", Markup(share_bar(spent / total)))
        for stage, spent in sums.items()
    ]
    rows.append(("all", f"{total / len(run):.2f}", f"{total:,.0f}", "", Markup()))
    gpu, dollars = (float(np.nansum(run.numbers[name])) for name in ("gpu_seconds", "cost_dollars"))
    wanted, good = len(run) + len(run.dead), len(run) - int(run.flagged.sum())
    words = [
        f"{len(run):,} of {wanted:,} prompts have an asset, {good:,} of them not flagged",
        f"{gpu:,.0f} GPU seconds",
    ]
    if dollars:
        words.append(f"{money(dollars)}, {money(dollars / max(good, 1))} an asset that is not flagged")
    stages = table("Time in model code", ("stage", "s an asset", "s", "share", ""), rows)
    return f"<p>{escape('; '.join(words))}.</p>{stages}{_calls(run)}{run.last_run}"


def _calls(run: ScoredRun) -> str:
    """Network evaluations an asset, counted both ways (Table 4)."""
    rows = []
    for part in [name.removeprefix("steps_") for name in run.calls if name.startswith("steps_")]:
        known = [run.calls[f"{kind}_{part}"] for kind in ("steps", "forwards") if f"{kind}_{part}" in run.calls]
        if len(known) == 2 and all(np.isfinite(values).any() for values in known):
            rows.append((part, *(f"{np.nanmean(values):,.1f}" for values in known)))
    head = ("model", "sampler steps", "forwards, guidance doubled")
    return table("Network evaluations an asset, mean", head, rows) if rows else ""
