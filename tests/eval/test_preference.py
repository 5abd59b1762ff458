"""Scores of simulated annotators: honest, careless and broken ones."""

from __future__ import annotations

import random

import pytest

from eval.answers import COLUMNS, Thresholds
from eval.assignment import BROKEN, StudyConfig, Task, assign
from eval.preference import ALL, Result, as_csv, preference_table, score_study, win_rates
from eval.tables import write

STUDY = "s1"
PAIRS = [(f"m{k}", f"p{p}") for k in range(2) for p in range(10)]
TASKS = assign(PAIRS, "ours", StudyConfig(load=40))
NAMES = list(dict.fromkeys(task.annotator for task in TASKS))


def honest(task: Task) -> str:
    """Sees what is broken, and prefers ours to m0 always, to m1 in image alignment only."""
    if BROKEN in (task.left, task.right):
        return "left" if task.right == BROKEN else "right"
    wins = task.competitor == "m0" or task.criterion == "alignment"
    return "left" if (task.left == "ours") == wins else "right"


def answer_file(annotator: str, choose=honest, when: str = "2026-01-01T00:00:00Z") -> str:
    rows = [[STUDY, annotator, t.task_id, choose(t), "2.5", when] for t in TASKS if t.annotator == annotator]
    return "\n".join(",".join(row) for row in [list(COLUMNS), *rows]) + "\n"


def scored(files: dict[str, str], **thresholds: float) -> Result:
    return score_study(STUDY, TASKS, files, Thresholds(**thresholds))


def test_honest_annotators_give_the_truth() -> None:
    result = scored({name: answer_file(name) for name in NAMES})
    rates = {(rate.competitor, rate.criterion): rate for rate in result.rates}
    assert not any(one.rejected for one in result.annotators)
    assert not result.short
    assert not result.problems
    assert rates["m0", "quality"].rate == rates["m1", "alignment"].rate == 1
    assert rates["m1", "quality"].rate == 0
    assert rates[ALL, "quality"].rate == 0.5
    assert rates["m0", "quality"].low == pytest.approx(0.7225, abs=1e-4)  # Wilson for 10 of 10
    assert rates["m0", "quality"].annotations == 50
    assert rates[ALL, "quality"].alpha == 1


def test_careless_annotator_is_rejected_by_name_and_has_no_vote() -> None:
    files = {name: answer_file(name, (lambda task: "left") if name == NAMES[0] else honest) for name in NAMES}
    result = scored(files)
    rejected = {one.annotator: one.rejected for one in result.annotators if one.rejected}
    assert rejected == {NAMES[0]: "turned down 3 of 6 broken versions"}
    assert result.short == 40
    assert {rate.rate for rate in result.rates if rate.competitor == "m0"} == {1}
    assert not [one for one in scored(files, min_attention=0, min_consistency=0).annotators if one.rejected]


def test_few_who_answer_by_chance_pass() -> None:
    passed = 0
    for seed in range(40):
        toss = random.Random(seed).choice
        result = scored({name: answer_file(name, lambda _, toss=toss: toss(["left", "right"])) for name in NAMES})
        passed += sum(not one.rejected for one in result.annotators)
    # at least 5 of 6 broken versions: 7/64; at least 2 of 4 repeats: 11/16
    assert passed / (40 * len(NAMES)) == pytest.approx(7 / 64 * 11 / 16, abs=0.05)


def test_inconsistent_annotator_is_rejected() -> None:
    def fickle(task: Task) -> str:
        return {"left": "right", "right": "left"}[honest(task)] if task.kind == "repeat" else honest(task)

    result = scored({name: answer_file(name, fickle if name == NAMES[0] else honest) for name in NAMES})
    assert [one.rejected for one in result.annotators if one.rejected] == ["answered 0 of 4 repeated pairs as before"]


def test_ties_count_half_and_unplayable_does_not_vote() -> None:
    def unseen(task: Task) -> str:
        return "unplayable" if task.kind == "question" else honest(task)

    def against(task: Task) -> str:
        flipped = {"left": "right", "right": "left"}[honest(task)]
        return honest(task) if task.kind == "broken" else flipped

    tasks = assign([("m0", "p")], "ours", StudyConfig(per_question=3, num_repeats=0))
    names = list(dict.fromkeys(task.annotator for task in tasks))
    ways = dict(zip(names, (honest, against, unseen)))
    rows = {
        name: "\n".join(
            [",".join(COLUMNS)]
            + [f"{STUDY},{name},{t.task_id},{way(t)},1,2026-01-01" for t in tasks if t.annotator == name]
        )
        for name, way in ways.items()
    }
    result = score_study(STUDY, tasks, rows, Thresholds())
    assert [(q.votes_ours, q.votes_competitor, q.consensus) for q in result.consensus] == [(1, 1, "tie")] * 2
    assert [(rate.rate, rate.ties, rate.wins) for rate in win_rates(result.consensus)] == [(0.5, 1, 0)] * 2
    assert result.short == 2
    assert sum(one.unplayable for one in result.annotators) == 2


def test_bad_lines_are_named_and_not_used() -> None:
    good = answer_file(NAMES[0]).splitlines()
    bad = [
        f"other,{NAMES[0]},{TASKS[0].task_id},left,1,x",
        f"{STUDY},{NAMES[1]},{TASKS[0].task_id},left,1,x",
        f"{STUDY},{NAMES[0]},{TASKS[0].task_id},both,1,x",
        f"{STUDY},{NAMES[0]},{TASKS[0].task_id},left,-1,x",
        f"{STUDY},{NAMES[0]}",
        good[1],
    ]
    files = {"good.csv": "\n".join([*good, *bad]), "none.csv": "hello", "nul.csv": "\0"}
    result = scored(files)
    assert result.annotators[0].answers == len(good) - 1
    text = "\n".join(result.problems)
    for part in ("study is 'other'", "has no task", "choice is 'both'", "seconds are '-1'", "answered twice"):
        assert part in text
    assert len(result.problems) == len(bad) + 2
    assert f"good.csv, line {len(good) + 1}: " in text


def test_later_answer_stands_whatever_the_order_of_files() -> None:
    early = answer_file(NAMES[0], lambda task: "left", "2026-01-01T00:00:00Z")
    late = answer_file(NAMES[0], honest, "2026-01-02T00:00:00Z")
    for files in ({"a": early, "b": late}, {"a": late, "b": early}):
        result = scored(files)
        assert result.annotators[0].broken_passed == 6
        assert result.changed > 0


def test_no_usable_answer_is_an_error() -> None:
    with pytest.raises(ValueError, match="hold no usable answer: a, line 1"):
        scored({"a": "hello"})


def test_table_has_a_row_a_competitor() -> None:
    result = scored({name: answer_file(name) for name in NAMES})
    text = write(preference_table(result.rates), "markdown")
    assert "| m0 | 100.0% (72.2–100.0) | 100.0% (72.2–100.0) | 20 | 100 |" in text
    assert text.splitlines()[-1].startswith(f"| {ALL} | 100.0% (83.9–100.0) | 50.0% (29.9–70.1) |")
    assert as_csv(result.consensus).splitlines()[0].startswith("competitor,prompt_id,criterion,votes_ours")
