"""Assign pairs of turntables to annotators as the paper's study does (4.1, A.2), checks between: `assign`.

A question is a triplet of competitor, prompt and criterion. Each goes to `per_question` annotators; each annotator also
meets checks that show who does not look: an asset beside a broken version of itself, and earlier pairs once more
with sides swapped.
"""

from __future__ import annotations

import csv
import heapq
import io
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, cast

from recon.user_error import UserError

Side = Literal["left", "right"]
Kind = Literal["question", "broken", "repeat"]

CRITERIA = ("alignment", "quality")
"""Image Alignment and 3D Quality, in the paper's words."""
BROKEN = "broken"
"""Stands for the broken version of an asset where a task names the method of a side."""
MAX_BROKEN_ASSETS = 8
"""Checks break the assets of so many prompts at most."""
TOKEN_BITS = 40


@dataclass(kw_only=True, slots=True)
class StudyConfig:
    """The size of a study and its checks."""

    per_question: int = 5
    """Annotators who answer each question; odd, so that a majority exists."""
    load: int = 60
    """Questions an annotator, at most; it decides how many annotators are wanted."""
    num_broken: int = 6
    """Checks an annotator that show an asset beside a broken version of itself."""
    num_repeats: int = 4
    """Questions an annotator that come again later with sides swapped."""
    seed: int = 0
    """Of orders, sides and checks."""

    def __post_init__(self) -> None:
        if self.per_question < 1 or self.per_question % 2 == 0:
            raise UserError(f"per-question is {self.per_question}; an odd number makes a majority: 1, 3, 5, ...")
        if self.load < 1:
            raise UserError(f"load is {self.load}; an annotator wants at least 1 question")
        if min(self.num_broken, self.num_repeats) < 0:
            raise UserError(f"num-broken {self.num_broken} and num-repeats {self.num_repeats} must not be negative")


@dataclass(kw_only=True, slots=True)
class Task:
    """One screen of one annotator. `left` and `right` name methods, or BROKEN; `competitor` is empty in a broken check.

    `source` is the task that a repeat repeats, else empty. `task_id` tells nothing about the kind.
    """

    task_id: str
    annotator: str
    kind: Kind
    criterion: str
    prompt_id: str
    competitor: str
    left: str
    right: str
    source: str = ""

    def chosen(self, side: Side) -> str:
        """The method of a side."""
        return self.left if side == "left" else self.right


def assign(pairs: Sequence[tuple[str, str]], ours: str, config: StudyConfig) -> list[Task]:
    """The tasks of all annotators, those of one together and in the order of their screens.

    Every question goes to `per_question` different annotators, whose loads differ by at most one question; ours stands
    on the left for half of them (one more or less for an odd number). The seed decides everything but the
    annotators' secret names.

    Args:
        pairs: (competitor, prompt_id) of every pair of turntables.
        ours: the method that all competitors are compared with; checks break its assets.

    Raises:
        UserError: for no pairs.
    """
    if not pairs:
        raise UserError("there is no pair of assets to ask about; the runs share no prompt with a turntable")
    chance = random.Random(config.seed)
    questions = [(*pair, criterion) for pair in pairs for criterion in CRITERIA]
    chance.shuffle(questions)
    count = max(config.per_question, math.ceil(len(questions) * config.per_question / config.load))
    sheets: list[list[Task]] = [[] for _ in range(count)]
    queue = [(0, chance.random(), index) for index in range(count)]
    heapq.heapify(queue)
    for competitor, prompt_id, criterion in questions:
        least = [heapq.heappop(queue) for _ in range(config.per_question)]
        for (load, _, index), swapped in zip(least, _alternating(config.per_question, chance)):
            left, right = (competitor, ours) if swapped else (ours, competitor)
            sheets[index].append(_task("question", criterion, prompt_id, competitor, left, right))
            heapq.heappush(queue, (load + 1, chance.random(), index))
    prompt_ids = sorted({prompt_id for _, prompt_id in pairs})
    prompt_ids = chance.sample(prompt_ids, min(MAX_BROKEN_ASSETS, len(prompt_ids)))
    return [task for sheet in sheets for task in _finished(sheet, prompt_ids, ours, config, chance)]


def _task(kind: Kind, criterion: str, prompt_id: str, competitor: str, left: str, right: str) -> Task:
    return Task(
        task_id="", annotator="", kind=kind, criterion=criterion, prompt_id=prompt_id,
        competitor=competitor, left=left, right=right,
    )  # fmt: skip


def _alternating(count: int, chance: random.Random) -> list[bool]:
    """As many True as False, one more of either for an odd count, in random order."""
    first = chance.random() < 0.5
    flags = [first ^ (index % 2 == 1) for index in range(count)]
    chance.shuffle(flags)
    return flags


def _finished(
    sheet: list[Task], prompt_ids: Sequence[str], ours: str, config: StudyConfig, chance: random.Random
) -> list[Task]:
    """One annotator's questions in random order, with the checks among them and names on all."""
    chance.shuffle(sheet)
    early = sheet[: max(1, len(sheet) // 3)]
    originals = chance.sample(early, min(config.num_repeats, len(early)))
    repeats = [(task, _task("repeat", *_swapped(task))) for task in originals]
    for _, repeat in repeats:
        sheet.insert(chance.randint(-(-len(sheet) // 2), len(sheet)), repeat)
    for swapped in _alternating(config.num_broken, chance):
        left, right = (BROKEN, ours) if swapped else (ours, BROKEN)
        broken = _task("broken", chance.choice(CRITERIA), chance.choice(prompt_ids), "", left, right)
        sheet.insert(chance.randint(0, len(sheet)), broken)
    annotator = f"{random.SystemRandom().getrandbits(TOKEN_BITS):0{TOKEN_BITS // 4}x}"
    for position, task in enumerate(sheet, 1):
        task.annotator, task.task_id = annotator, f"{annotator}-{position:03d}"
    for original, repeat in repeats:
        repeat.source = original.task_id
    return sheet


def _swapped(task: Task) -> tuple[str, str, str, str, str]:
    return task.criterion, task.prompt_id, task.competitor, task.right, task.left


def write_assignment(tasks: Iterable[Task]) -> str:
    """The tasks as CSV. It says which side is whose: keep it from annotators."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, [field.name for field in fields(Task)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(task) for task in tasks)
    return stream.getvalue()


def read_assignment(text: str) -> list[Task]:
    """The tasks of `write_assignment`.

    Raises:
        UserError: for another table.
    """
    try:
        rows = cast(Iterable[dict[str, Any]], csv.DictReader(io.StringIO(text)))
        return [Task(**row) for row in rows]
    except TypeError as error:
        raise UserError(f"the assignment is not as im3d study make writes it: {error}") from error
