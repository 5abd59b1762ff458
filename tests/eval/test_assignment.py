"""Who sees what: balance, blindness, checks, and that the seed decides."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

import pytest

from eval.assignment import BROKEN, CRITERIA, StudyConfig, Task, assign, read_assignment, write_assignment

PAPER = [(f"method {k}", f"prompt {p}") for k in range(5) for p in range(39)]


def by_annotator(tasks: list[Task]) -> dict[str, list[Task]]:
    sheets: dict[str, list[Task]] = {}
    for task in tasks:
        sheets.setdefault(task.annotator, []).append(task)
    return sheets


def test_study_of_the_papers_size() -> None:
    tasks = assign(PAPER, "ours", StudyConfig())
    questions = [task for task in tasks if task.kind == "question"]
    assert len(questions) == 1950  # A.2: 5 annotators x 5 methods x 39 reconstructions x 2 question types
    asked = Counter((task.competitor, task.prompt_id, task.criterion) for task in questions)
    assert set(asked.values()) == {5}
    assert len(asked) == len(PAPER) * len(CRITERIA)
    assert len({(task.annotator, task.competitor, task.prompt_id, task.criterion) for task in questions}) == 1950
    loads = Counter(task.annotator for task in questions).values()
    assert max(loads) - min(loads) <= 1
    assert max(loads) <= 60


def test_sides_are_balanced_in_every_question_and_shuffled_over_screens() -> None:
    tasks = assign(PAPER, "ours", StudyConfig())
    left = Counter((t.competitor, t.prompt_id, t.criterion) for t in tasks if t.kind == "question" and t.left == "ours")
    assert set(left.values()) == {2, 3}
    for sheet in by_annotator(tasks).values():
        assert 0.2 < sum(task.left == "ours" for task in sheet) / len(sheet) < 0.8
        assert len({task.competitor for task in sheet[:15]}) > 1
        assert sheet[0].kind != "repeat"


def test_every_annotator_meets_the_checks() -> None:
    config = StudyConfig(num_broken=6, num_repeats=4)
    tasks = assign(PAPER, "ours", config)
    for sheet in by_annotator(tasks).values():
        position = {task.task_id: index for index, task in enumerate(sheet)}
        repeats = [task for task in sheet if task.kind == "repeat"]
        assert len(repeats) == 4
        for repeat in repeats:
            original = sheet[position[repeat.source]]
            assert (original.left, original.right) == (repeat.right, repeat.left)
            assert (original.prompt_id, original.criterion) == (repeat.prompt_id, repeat.criterion)
            assert original.kind == "question"
            assert position[repeat.task_id] - position[original.task_id] >= 5
        broken = [task for task in sheet if task.kind == "broken"]
        assert Counter(task.left for task in broken) == {BROKEN: 3, "ours": 3}
    assert len({task.prompt_id for task in tasks if task.kind == "broken"}) <= 8


def test_seed_decides_all_but_the_secret_names() -> None:
    def plain(tasks: list[Task]) -> list[dict[str, str]]:
        return [asdict(t) | {"annotator": "", "task_id": "", "source": t.source[-3:]} for t in tasks]

    first, again = (assign(PAPER[:20], "ours", StudyConfig(seed=3)) for _ in range(2))
    assert plain(first) == plain(again)
    assert not {t.annotator for t in first} & {t.annotator for t in again}
    assert plain(first) != plain(assign(PAPER[:20], "ours", StudyConfig(seed=4)))


def test_smallest_study_and_its_table() -> None:
    tasks = assign([("theirs", "p")], "ours", StudyConfig(per_question=1, num_broken=0))
    assert Counter(task.kind for task in tasks) == {"question": 2, "repeat": 1}
    assert read_assignment(write_assignment(tasks)) == tasks
    with pytest.raises(ValueError, match="not as im3d study make writes it"):
        read_assignment("a,b\n1,2\n")


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="per-question is 4"):
        StudyConfig(per_question=4)
    with pytest.raises(ValueError, match="no pair of assets"):
        assign([], "ours", StudyConfig())
