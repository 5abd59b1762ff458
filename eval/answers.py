"""Check the answers of annotators line by line, and annotators by control questions: `check_answers`, `judge`."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass

from eval.assignment import BROKEN, Task
from recon.user_error import UserError

COLUMNS = ("study", "annotator", "task", "choice", "seconds", "answered")
"""Of an answer file; `seconds` to the choice, `answered` in ISO 8601."""
UNPLAYABLE = "unplayable"
CHOICES = ("left", "right", UNPLAYABLE)


@dataclass(kw_only=True, slots=True)
class Answer:
    """What one annotator chose on one screen: `choice` is one of CHOICES."""

    task: Task
    choice: str
    seconds: float
    answered: str

    @property
    def method(self) -> str:
        """The method that was preferred; meaningless where a video did not play."""
        return self.task.chosen("left" if self.choice == "left" else "right")


@dataclass(kw_only=True, slots=True)
class Thresholds:
    """Who is believed."""

    min_attention: float = 0.8
    """Share of broken versions that an annotator must turn down."""
    min_consistency: float = 0.5
    """Share of repeated pairs that an annotator must answer as before; honest doubt between near equals is allowed."""

    def __post_init__(self) -> None:
        for name in ("min_attention", "min_consistency"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name.replace('_', '-')} is {getattr(self, name)}; it must lie in [0, 1]")


@dataclass(kw_only=True, slots=True)
class Annotator:
    """One annotator's checks; `rejected` gives the reason, or is empty."""

    annotator: str
    answers: int
    tasks: int
    broken_passed: int
    broken: int
    repeats_agreed: int
    repeats: int
    unplayable: int
    rejected: str


def check_answers(text: str, study: str, tasks: Mapping[str, Task]) -> tuple[list[Answer], list[str]]:
    """The usable answers of one file, and what is wrong with the other lines, each by its number.

    Args:
        text: CSV with COLUMNS.
        study: the study's id; answers of another study are refused.
        tasks: by task_id.
    """
    try:
        reader = csv.DictReader(io.StringIO(text))
        columns, rows = tuple(reader.fieldnames or ()), list(reader)
    except csv.Error as error:
        return [], [f"no CSV: {error}"]
    if columns != COLUMNS:
        return [], [f"line 1: columns are {', '.join(columns) or 'missing'}; wanted {', '.join(COLUMNS)}"]
    answers: list[Answer] = []
    problems: list[str] = []
    seen: set[str] = set()
    for number, row in enumerate(rows, 2):
        try:
            answer = _answer(row, study, tasks)
            if answer.task.task_id in seen:
                raise ValueError(f"task {answer.task.task_id} is answered twice")
            seen.add(answer.task.task_id)
            answers.append(answer)
        except ValueError as error:
            problems.append(f"line {number}: {error}")
    return answers, problems


def _answer(row: Mapping[str, str | None], study: str, tasks: Mapping[str, Task]) -> Answer:
    if row["study"] != study:
        raise ValueError(f"study is {row['study']!r}, wanted {study!r}")
    task = tasks.get(row["task"] or "")
    if task is None or task.annotator != row["annotator"]:
        raise ValueError(f"annotator {row['annotator']!r} has no task {row['task']!r}")
    if row["choice"] not in CHOICES:
        raise ValueError(f"choice is {row['choice']!r}. Available: {', '.join(CHOICES)}")
    seconds = float(row["seconds"] or "nan")
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError(f"seconds are {row['seconds']!r}; wanted a number that is not negative")
    return Answer(task=task, choice=row["choice"], seconds=seconds, answered=(row["answered"] or "")[:40])


def judge(annotator: str, answers: Mapping[str, Answer], tasks: int, thresholds: Thresholds) -> Annotator:
    """Whether an annotator with `answers` by task_id passes the checks; without an answered check, no.

    Args:
        tasks: how many screens the annotator was given.
    """
    usable = [answer for answer in answers.values() if answer.choice != UNPLAYABLE]
    broken = [answer.method != BROKEN for answer in usable if answer.task.kind == "broken"]
    repeats = [
        answer.method == answers[answer.task.source].method
        for answer in usable
        if answer.task.kind == "repeat" and _is_choice(answers.get(answer.task.source))
    ]
    reason = ""
    if not broken and not repeats:
        reason = "answered no check"
    elif sum(broken) < thresholds.min_attention * len(broken):
        reason = f"turned down {sum(broken)} of {len(broken)} broken versions"
    elif sum(repeats) < thresholds.min_consistency * len(repeats):
        reason = f"answered {sum(repeats)} of {len(repeats)} repeated pairs as before"
    return Annotator(
        annotator=annotator, answers=len(answers), tasks=tasks, broken_passed=sum(broken), broken=len(broken),
        repeats_agreed=sum(repeats), repeats=len(repeats), unplayable=len(answers) - len(usable), rejected=reason,
    )  # fmt: skip


def _is_choice(answer: Answer | None) -> bool:
    return answer is not None and answer.choice != UNPLAYABLE
