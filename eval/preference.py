"""Score what annotators prefer, as win rates with their agreement (4.1, A.2): `score_study`."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from eval.agreement import krippendorff_alpha, wilson_interval
from eval.answers import UNPLAYABLE, Annotator, Answer, Thresholds, check_answers, judge
from eval.assignment import CRITERIA, Task
from eval.tables import Table
from recon.user_error import UserError

ALL = "all competitors"
TITLES = {"alignment": "image alignment", "quality": "3D quality"}


@dataclass(kw_only=True, slots=True)
class Consensus:
    """One question: votes of the believed, and the majority's method, or 'tie'."""

    competitor: str
    prompt_id: str
    criterion: str
    votes_ours: int
    votes_competitor: int
    consensus: str


@dataclass(kw_only=True, slots=True)
class WinRate:
    """How often the majority prefers ours: `rate` in [0, 1], a tie counts half; Wilson's interval; nominal alpha."""

    competitor: str
    criterion: str
    questions: int
    wins: int
    ties: int
    rate: float
    low: float
    high: float
    alpha: float
    annotations: int


@dataclass(kw_only=True, slots=True)
class Result:
    """A scored study. `problems` name what was not used; `changed` counts answers that a later file replaced."""

    annotators: list[Annotator]
    consensus: list[Consensus]
    rates: list[WinRate]
    problems: list[str]
    changed: int
    short: int
    """Questions with fewer believed votes than were assigned."""


def score_study(study: str, tasks: Sequence[Task], texts: Mapping[str, str], thresholds: Thresholds) -> Result:
    """Score the answer files of a study.

    Args:
        study: its id.
        tasks: its assignment.
        texts: content of the answer files by name; where two answer the same screen, the one answered later stands.
        thresholds: who is believed.

    Raises:
        UserError: when there is no usable answer at all.
    """
    given, problems, changed = _gathered(study, {task.task_id: task for task in tasks}, texts)
    if not given:
        raise UserError(f"{len(texts)} answer files hold no usable answer{': ' + problems[0] if problems else ''}")
    screens = Counter(task.annotator for task in tasks)
    annotators = [judge(name, own, screens[name], thresholds) for name, own in sorted(given.items())]
    believed = [one.annotator for one in annotators if not one.rejected]
    consensus = majority(answer for name in believed for answer in given[name].values())
    wanted = Counter((t.competitor, t.prompt_id, t.criterion) for t in tasks if t.kind == "question")
    votes = {(q.competitor, q.prompt_id, q.criterion): q.votes_ours + q.votes_competitor for q in consensus}
    short = sum(votes.get(question, 0) < count for question, count in wanted.items())
    return Result(
        annotators=annotators, consensus=consensus, rates=win_rates(consensus),
        problems=problems, changed=changed, short=short,
    )  # fmt: skip


def _gathered(
    study: str, tasks: Mapping[str, Task], texts: Mapping[str, str]
) -> tuple[dict[str, dict[str, Answer]], list[str], int]:
    """The last answer to each screen by annotator and task_id, what was not used, how many answers were replaced."""
    given: dict[str, dict[str, Answer]] = {}
    problems, changed = [], 0
    for name, text in texts.items():
        answers, wrong = check_answers(text, study, tasks)
        problems += [f"{name}, {problem}" for problem in wrong]
        for answer in answers:
            own = given.setdefault(answer.task.annotator, {})
            before = own.get(answer.task.task_id)
            changed += before is not None and before.choice != answer.choice
            if before is None or before.answered <= answer.answered:
                own[answer.task.task_id] = answer
    return given, problems, changed


def majority(answers: Iterable[Answer]) -> list[Consensus]:
    """The consensus of every question that has votes; checks do not vote."""
    votes: dict[tuple[str, str, str], Counter[bool]] = {}
    for answer in answers:
        if answer.task.kind == "question" and answer.choice != UNPLAYABLE:
            question = (answer.task.competitor, answer.task.prompt_id, answer.task.criterion)
            votes.setdefault(question, Counter())[answer.method != answer.task.competitor] += 1
    found = []
    for (competitor, prompt_id, criterion), count in sorted(votes.items()):
        ours, theirs = count[True], count[False]
        found.append(
            Consensus(
                competitor=competitor, prompt_id=prompt_id, criterion=criterion, votes_ours=ours,
                votes_competitor=theirs, consensus="tie" if ours == theirs else "ours" if ours > theirs else competitor,
            )
        )  # fmt: skip
    return found


def win_rates(consensus: Sequence[Consensus]) -> list[WinRate]:
    """Of each competitor and criterion, then of all competitors together where there are several."""
    competitors = sorted({question.competitor for question in consensus})
    found = []
    for competitor in [*competitors, *([ALL] if len(competitors) > 1 else [])]:
        for criterion in CRITERIA:
            own = [q for q in consensus if q.criterion == criterion and competitor in (q.competitor, ALL)]
            if own:
                found.append(_win_rate(competitor, criterion, own))
    return found


def _win_rate(competitor: str, criterion: str, own: Sequence[Consensus]) -> WinRate:
    wins, ties = (sum(question.consensus == what for question in own) for what in ("ours", "tie"))
    low, high = wilson_interval(wins + ties / 2, len(own))
    return WinRate(
        competitor=competitor, criterion=criterion, questions=len(own), wins=wins, ties=ties,
        rate=(wins + ties / 2) / len(own), low=low, high=high,
        alpha=krippendorff_alpha(["o"] * q.votes_ours + ["c"] * q.votes_competitor for q in own),
        annotations=sum(q.votes_ours + q.votes_competitor for q in own),
    )  # fmt: skip


def preference_table(rates: Sequence[WinRate]) -> Table:
    """Our win rate by competitor and question, as in the paper's Figure 5."""
    columns = (
        "competitor",
        *(f"{TITLES[name]}: our win rate" for name in CRITERIA),
        "questions",
        "annotations",
        "alpha",
    )
    rows = []
    for competitor in dict.fromkeys(rate.competitor for rate in rates):
        own = {rate.criterion: rate for rate in rates if rate.competitor == competitor}
        shares = [_share(own.get(name)) for name in CRITERIA]
        counts = (str(sum(getattr(rate, what) for rate in own.values())) for what in ("questions", "annotations"))
        alphas = " / ".join(_alpha(own.get(name)) for name in CRITERIA)
        rows.append((competitor, *shares, *counts, alphas))
    caption = "Figure 5. Human evaluation: how often the majority prefers ours, with 95% Wilson intervals"
    return Table(caption=caption, columns=columns, rows=rows)


def _share(rate: WinRate | None) -> str:
    return f"{100 * rate.rate:.1f}% ({100 * rate.low:.1f}–{100 * rate.high:.1f})" if rate else "—"


def _alpha(rate: WinRate | None) -> str:
    return "—" if rate is None or math.isnan(rate.alpha) else f"{rate.alpha:.2f}"


def as_csv(rows: Sequence[Annotator | Consensus | WinRate]) -> str:
    """Rows of one kind as CSV."""
    stream = io.StringIO()
    if rows:
        writer = csv.DictWriter(stream, list(asdict(rows[0])), lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    return stream.getvalue()
