"""Tries of a stage: short memory, bugs, `sys.exit`, and what a failed try leaves behind."""

from __future__ import annotations

import gc
import sys
import weakref
from typing import Any

import pyarrow as pa
import pytest
import torch

from factory.config.settings import FactoryConfig
from factory.ledger.schemas import LINE, empty_row
from factory.line.stage import Row, Stage

OUT_OF_MEMORY = "CUDA out of memory. Tried to allocate 20.00 GiB"


class Tried(Stage):
    """Notes the prompts of every try, and fails on those that say so."""

    name, writes = "image", (pa.field("device", pa.string()),)

    def load(self) -> None:
        self.tries: list[str] = []

    def process(self, rows: list[Row]) -> None:
        self.tries.append(" ".join(row["prompt"] for row in rows))
        for row in rows:
            row["device"] = "touched"
            if row["prompt"] == "bug":
                raise KeyError("colour")
            if row["prompt"] == "exit":
                sys.exit(0)
        if len(rows) > 2 or rows[0]["prompt"] == "huge":
            raise RuntimeError(OUT_OF_MEMORY)


def run(stage: Stage, *prompts: str) -> list[dict[str, Any]]:
    rows = [empty_row(prompt_id=str(k), prompt=prompt) for k, prompt in enumerate(prompts)]
    return stage(pa.Table.from_pylist(rows, schema=LINE)).to_pylist()


def test_short_memory_shrinks_the_batch_and_goes_on() -> None:
    stage = Tried(FactoryConfig())
    for texts in ("abcdefgh", "ijkl", ["huge", "x"]):
        rows = run(stage, *texts)
    halves = ["abcdefgh", "abcd", "ab", "cd", "efgh", "ef", "gh", "ij", "kl"]
    assert stage.tries == [*(" ".join(half) for half in halves), "huge x", "huge", "huge", "x"]
    assert stage.fits == 1
    assert [row["error_stage"] for row in rows] == ["image", None]
    assert "out of memory" in rows[0]["error_message"]


@pytest.mark.parametrize("bad", ["bug", "exit"])
def test_error_that_no_smaller_batch_cures_costs_each_row_one_more_try(bad: str) -> None:
    stage = Tried(FactoryConfig())
    rows = run(stage, "a", bad)
    assert stage.tries == [f"a {bad}", "a", bad]
    assert stage.fits == stage.together
    assert [row["error_type"] for row in rows] == [None, {"bug": "KeyError", "exit": "SystemExit"}[bad]]
    assert [row["device"] for row in rows] == ["touched", None], "a failed try leaves no half-filled columns"
    assert "in process" in rows[1]["error_trace"]
    stage.tries.clear()
    assert run(stage, bad)[0]["error_stage"] == "image"
    assert stage.tries == [bad], "a bug is not tried again"


def test_tensors_of_a_failed_try_are_dead_in_the_next() -> None:
    class Hoarder(Stage):
        name = "image"

        def load(self) -> None:
            self.seen: list[weakref.ref[torch.Tensor]] = []
            self.alive: list[int] = []

        def process(self, rows: list[Row]) -> None:
            gc.disable()  # the stage itself has to collect
            self.alive.append(sum(ref() is not None for ref in self.seen))
            activations = torch.zeros(1000)
            self.seen.append(weakref.ref(activations))
            rows[0]["image"] = activations  # a column half made is one more way to stay alive
            if len(rows) > 1 or len(self.seen) < 4:
                error = RuntimeError(OUT_OF_MEMORY)
                raise error  # its traceback holds this frame, and this frame the error: only gc ends such a cycle
            rows[0]["image"] = b""

    stage = Hoarder(FactoryConfig())
    try:
        run(stage, "a", "b", "c", "d")
    finally:
        gc.enable()
    assert len(stage.alive) > 4
    assert stage.alive == [0] * len(stage.alive)


def test_exit_while_loading_is_an_error_with_its_place() -> None:
    class Leaving(Stage):
        name = "image"

        def load(self) -> None:
            sys.exit(0)

    with pytest.raises(RuntimeError, match=r"sys\.exit\(0\) was called while stage image loaded"):
        Leaving(FactoryConfig())
