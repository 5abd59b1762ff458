"""Lines without Ray: every row has its record, and nothing ends the process that people debug in."""

from __future__ import annotations

import time
from bdb import BdbQuit
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from factory.config.settings import FactoryConfig
from factory.ledger.ledger import ASSETS, DEAD, Ledger
from factory.ledger.schemas import DEAD_LETTERS
from factory.line.cost import stage_usage
from factory.line.inprocess import run_inprocess
from factory.line.one_stage_line import SingleStage
from factory.line.placement import Pool
from factory.line.rows import Row
from factory.line.settings import LineConfig
from factory.line.stage import Stage
from factory.line.step import Step
from factory.line.tally import TooManyFailures
from factory.prompts.row import Prompt
from factory.prompts.work import PromptWork
from factory.storage.interface import StorageError
from factory.storage.store import open_store

LINE = LineConfig(runner="inprocess")


class Sign(SingleStage):
    """Commits the prompt's length; some prompts misbehave."""

    name, dead_letters = "sign", DEAD_LETTERS
    schema = pa.schema([("prompt_id", pa.string()), ("length", pa.int64())])

    def make(self, row: Row) -> Row:
        errors = {
            "bug": KeyError("ink"),
            "exit": SystemExit(0),
            "quit": BdbQuit(),
            "storage": StorageError("gone"),
            "device": RuntimeError("CUDA error: device-side assert triggered"),
        }
        if row["prompt"] in errors:
            raise errors[row["prompt"]]
        return {"length": len(row["prompt"])}


class Ponder(Stage):
    """Takes a while to load, and for every row."""

    name = "ponder"

    def load(self) -> None:
        time.sleep(0.2)

    def process(self, rows: list[Row]) -> None:
        time.sleep(0.2 * len(rows))


def run(out: Path, *texts: str, pool: Pool | None = None, before: Sequence[type[Stage]] = ()):
    prompts = [Prompt(prompt_id=f"p{k}", prompt=text, seed=k) for k, text in enumerate(texts)]
    arguments = {"config": FactoryConfig(), "out": str(out), "run_id": "r"}
    chain = [Step(actor=Sign, pool=pool or Pool(), arguments=arguments)]
    chain = [*(Step(actor=stage, pool=Pool(), arguments={"config": None}) for stage in before), *chain]
    ledger = Ledger(open_store(str(out)))
    return run_inprocess(PromptWork(prompts=prompts, config=FactoryConfig()), chain, LINE, ledger), ledger


def test_every_row_has_a_record_and_its_trace_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    limits = Pool(max_rows=1, max_growth_gb=1e-9, row_timeout=1e-3)  # under Ray each of them would end the process
    tally, ledger = run(tmp_path, "a cup", "bug", "exit", "a lamp", pool=limits)
    assert (tally.total, tally.done, tally.failed) == (4, 2, 2)
    assert {row["prompt_id"]: row["length"] for row in ledger.rows(ASSETS)} == {"p0": 5, "p3": 6}
    letters = {row["prompt_id"]: row for row in ledger.rows(DEAD)}
    assert {name: row["error_type"] for name, row in letters.items()} == {"p1": "KeyError", "p2": "SystemExit"}
    assert letters["p1"]["error_trace"].rstrip().endswith("KeyError: 'ink'")
    assert "in make\n    raise errors[" in capsys.readouterr().err
    count = tally.look().stages["sign"]
    assert (count.finished, count.failed, count.running) == (4, 2, 0)
    again, _ = run(tmp_path, "a cup", "bug", "exit", "a lamp", "a box")
    assert (again.total, again.done) == (1, 1)


def test_a_stage_is_paid_for_its_own_seconds(tmp_path: Path) -> None:
    tally, _ = run(tmp_path, "a cup", "a lamp", "a box", before=[Ponder])
    used = stage_usage(tally.look().stages, {"ponder": Pool(), "sign": Pool()})
    assert 0.8 <= used["ponder"].actor_seconds < tally.seconds
    assert used["ponder"].actor_seconds + used["sign"].actor_seconds <= tally.seconds


@pytest.mark.parametrize(("text", "error"), [("quit", BdbQuit), ("storage", StorageError), ("device", RuntimeError)])
def test_what_is_no_matter_of_the_row_ends_the_run_and_what_is_done_stays(
    tmp_path: Path, text: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        run(tmp_path, "a cup", text, "a lamp")
    ledger = Ledger(open_store(str(tmp_path)))
    assert [row["prompt_id"] for row in ledger.rows(ASSETS)] == ["p0"]
    assert ledger.missing(["p0", "p1", "p2"]).tolist() == [1, 2]


def test_broken_line_gives_up(tmp_path: Path) -> None:
    with pytest.raises(TooManyFailures, match=r"20 of 20 rows failed.*line\.max_failed_share"):
        run(tmp_path, *["bug"] * 30)
