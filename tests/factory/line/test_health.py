"""Rows that kill or hang: halves down to one, time limits, replacement of processes at their limits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from factory.ledger.schemas import empty_row
from factory.line.health import (
    EXIT_BROKEN,
    EXIT_DRAINED,
    EXIT_HUNG,
    EXIT_REPLACED,
    MAX_DEATHS,
    Deaths,
    ProcessLimits,
    groups,
    mark_exhausted,
    own_memory,
)
from factory.line.placement import Pool

ROOT = Path(__file__).resolve().parents[3]


def sizes(deaths: list[int], limit: int = 99) -> list[int]:
    rows = [{"prompt_id": n} for n in range(len(deaths))]
    made = list(groups(rows, [Deaths(count=n) for n in deaths], limit))
    assert [row for group in made for row in group] == rows
    return [len(group) for group in made]


def test_batch_is_halved_for_every_death() -> None:
    assert sizes([0] * 8) == [8]
    assert sizes([1] * 8) == [4, 4]
    assert sizes([2] * 4 + [1] * 4) == [2, 2, 4]
    assert sizes([3, 3, 2, 2, 1, 1, 1, 1]) == [1, 1, 2, 4]
    assert sizes([0] * 5, limit=2) == [2, 2, 1]
    assert sizes([9]) == [1]


@pytest.mark.parametrize("batch", [1, 2, 6, 8, 64])
def test_one_killer_is_found_and_takes_no_neighbour_along(batch: int) -> None:
    """A process that dies whenever it works on row 0, until that row is given up."""
    deaths, done, processes = [0] * batch, set(), 0
    while True:
        known = [Deaths(count=n) for n in deaths]
        if known[0].exhausted(batch):
            break
        assert not any(death.exhausted(batch) for death in known[1:])
        for group in groups([{"n": n} for n in range(batch)], known, batch):
            members = [row["n"] for row in group]
            if 0 in members:
                for n in members:
                    deaths[n] += 1
                processes += 1
                break
            done.update(members)
    assert deaths[0] == processes == (batch.bit_length() - 1) + MAX_DEATHS
    assert processes <= batch.bit_length() + MAX_DEATHS + 2


def test_dead_letter_says_how_often_where_and_why() -> None:
    row = empty_row(prompt_id="p", prompt="x")
    mark_exhausted(row, "video", Deaths(count=4, host="node-7"))
    assert (row["error_type"], row["error_stage"], row["attempt"], row["host"]) == (
        "worker_killed",
        "video",
        4,
        "node-7",
    )
    assert "4 processes of stage video died with it" in row["error_message"]
    mark_exhausted(row, "video", Deaths(count=1, timed_out=True))
    assert row["error_type"] == "row_timeout"
    assert "line.pools.video.row_timeout" in row["error_message"]


def test_one_missed_time_limit_alone_is_enough_but_not_in_company() -> None:
    late = Deaths(count=1, timed_out=True)
    assert (late.exhausted(1), late.exhausted(2)) == (True, False)
    assert not Deaths(count=1).exhausted(1)


@pytest.mark.parametrize(
    ("pool", "body", "code", "batches"),
    [
        ("row_timeout=0.2", "import time; time.sleep(60)", EXIT_HUNG, 0),
        ("max_rows=2", "pass", EXIT_REPLACED, 2),
        ("max_growth_gb=0.05", "self.kept = bytearray(b'x' * (100 << 20))", EXIT_REPLACED, 1),
        ("max_growth_gb=0.05", "self.kept = mmap.mmap(-1, 100 << 20); self.kept.write(b'x' * (100 << 20))", 0, 3),
        ("", "raise RuntimeError('CUDA error: device-side assert triggered')", EXIT_BROKEN, 0),
        ("", "nodes.is_leaving = lambda node: True; self.reporter.node = 'spot'", EXIT_DRAINED, 1),
    ],
)
def test_process_ends_when_something_is_wrong_with_it_or_its_node(
    pool: str, body: str, code: int, batches: int
) -> None:
    program = f"""
import mmap
import pyarrow as pa
from factory.config.settings import FactoryConfig
from factory.ledger.schemas import LINE, empty_row
from factory.line import nodes
from factory.line.placement import Pool
from factory.line.stage import Stage
class Odd(Stage):
    name = "image"
    pool = Pool({pool})
    def process(self, rows):
        {body}
stage = Odd(FactoryConfig())
for n in range(3):
    stage(pa.Table.from_pylist([empty_row(prompt_id="p", prompt="x")], schema=LINE))
    print("batch", flush=True)
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.count("batch")) == (code, batches), done.stderr
    if code == EXIT_HUNG:
        assert "in process" in done.stderr


def test_growth_on_gpus_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    reserved = {0: 0, 1: 1 << 30}
    cuda = SimpleNamespace(is_initialized=lambda: True, device_count=lambda: 2, memory_reserved=reserved.__getitem__)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    limits = ProcessLimits(Pool(max_growth_gb=2.0))
    reserved[0] = 1 << 30
    limits.replace_if_exceeded()
    assert not ended
    reserved[1] = 3 << 30
    limits.replace_if_exceeded()
    assert ended == [EXIT_REPLACED]
    cuda.is_initialized = lambda: False  # asking a CUDA that was never used would start it
    assert own_memory() < 3 << 30


@pytest.mark.parametrize(
    "values",
    [{"in_flight": 0}, {"row_timeout": 0}, {"max_rows": 0}, {"actors": 3, "max_actors": 2}, {"labels": ("gpu",)}],
)
def test_pools_that_cannot_work_are_refused(values: dict) -> None:
    with pytest.raises(ValueError, match=r"must|need|none"):
        Pool(**values)
