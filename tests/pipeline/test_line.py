"""The mechanics of the line with small stages: every prompt has one outcome, whatever dies."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from ray import cloudpickle

from factory.config.settings import FactoryConfig
from factory.ledger.ledger import ASSETS, DEAD, Ledger
from factory.ledger.schemas import DEAD_LETTERS, pack, unpack
from factory.line.health import MAX_DEATHS
from factory.line.one_stage_line import SingleStage, line_config
from factory.line.placement import Pool
from factory.line.run import build, run_line
from factory.line.settings import LineConfig
from factory.line.stage import Row, Stage
from factory.line.step import Step
from factory.line.tally import TooManyFailures
from factory.prompts.row import Prompt
from factory.prompts.work import PromptWork
from factory.stages.asset_table import assets_schema
from factory.stages.chain import written_columns
from factory.stages.columns import IMAGE
from factory.stages.commit import Commit
from factory.storage.store import open_store

cloudpickle.register_pickle_by_value(sys.modules[__name__])
pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


EXITS: dict[str, Callable[[], Any]] = {
    "sys.exit": lambda: sys.exit(0),
    "os._exit": lambda: os._exit(0),
    "exit_actor": lambda: ray.actor.exit_actor(),
    "SIGTERM": lambda: (os.kill(os.getpid(), signal.SIGTERM), time.sleep(2)),
}


class Paint(Stage):
    """An image whose grey value is the prompt's length; some prompts misbehave."""

    name, writes = "image", (IMAGE, pa.field("device", pa.string()))

    def process(self, rows: list[Row]) -> None:
        if any(row["prompt"].startswith("raise") for row in rows):
            raise RuntimeError("no paint")
        for row in rows:
            if row["prompt"].startswith("kill"):
                os.kill(os.getpid(), signal.SIGKILL)
            marker = Path(row["prompt"].split(" once:")[-1])
            if " once:" in row["prompt"] and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if row["prompt"].startswith("hang"):
                time.sleep(600)
            if row["prompt"] in EXITS:
                EXITS[row["prompt"]]()
            row["device"] = f"process {os.getpid()}"
            row["image"] = pack(np.full((4, 4, 3), len(row["prompt"]), np.uint8))


class Keep(Commit):
    """Commits the image as the asset's one file."""

    def write(self, row: Row):
        key = f"files/{row['prompt_id']}/image.npy"
        self.store.put(key, row["image"])
        schema = assets_schema(written_columns())
        return {name: row.get(name) for name in schema.names} | {"image": None}, schema


class Sign(SingleStage):
    """A line of one stage that commits the prompt's length; misbehaves as `Paint` does."""

    name, dead_letters = "sign", DEAD_LETTERS
    schema = pa.schema([("prompt_id", pa.string()), ("length", pa.int64())])

    def make(self, row: Row) -> Row:
        if row["prompt"].startswith("raise"):
            raise ValueError("no ink")
        if row["prompt"].startswith("kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        return {"length": len(row["prompt"])}


@pytest.fixture(scope="module")
def cluster():
    from factory.line.ray_session import start_ray

    start_ray("local")
    yield
    ray.shutdown()


def line(out: Path, rows_per_block: int = 2, **line_settings) -> tuple[list[Step], FactoryConfig, Ledger]:
    config = FactoryConfig(line=LineConfig(rows_per_block=rows_per_block, **line_settings))
    pool = Pool(cpus=0.1, batch=rows_per_block)
    chain = [
        Step(actor=Paint, pool=pool, arguments={"config": config}),
        Step(actor=Keep, pool=pool, arguments={"config": config, "out": str(out), "run_id": "r"}),
    ]
    return chain, config, Ledger(open_store(str(out)))


def work(texts: list[str]) -> PromptWork:
    prompts = [Prompt(prompt_id=f"p{k}", prompt=text, seed=k) for k, text in enumerate(texts)]
    return PromptWork(prompts=prompts, config=FactoryConfig())


def ids(out: Path, folder: str) -> list[str]:
    return [
        i for part in sorted((out / folder).glob("*.parquet")) for i in pq.read_table(part)["prompt_id"].to_pylist()
    ]


def test_every_prompt_ends_once_among_raising_and_killing_neighbours(cluster, tmp_path: Path) -> None:
    out = tmp_path / "out"
    texts = ["a cup", "raise this", "a chair", "kill me", "a lamp", f"a vase once:{tmp_path}/mark", "a bed", "a box"]
    chain, config, ledger = line(out)
    tally = run_line(work(texts), chain, config.line, ledger)
    assert sorted(ids(out, ASSETS)) == ["p0", "p2", "p4", "p5", "p6", "p7"]
    assert sorted(ids(out, DEAD)) == ["p1", "p3"]
    assert (tally.done, tally.failed, tally.left) == (6, 2, 0)
    letters = {row["prompt_id"]: row for row in Ledger(open_store(str(out))).rows(DEAD)}
    assert (letters["p1"]["error_stage"], letters["p1"]["error_type"]) == ("image", "RuntimeError")
    assert letters["p1"]["error_message"] == "no paint"
    assert (letters["p3"]["error_stage"], letters["p3"]["error_type"]) == ("image", "worker_killed")
    assert (letters["p3"]["attempt"], letters["p3"]["host"]) == (1 + MAX_DEATHS, socket.gethostname())
    for row in Ledger(open_store(str(out))).rows(ASSETS):
        assert unpack((out / f"files/{row['prompt_id']}/image.npy").read_bytes())[0, 0, 0] == len(row["prompt"])
    assert not list((out / "commits").iterdir())


@pytest.mark.parametrize("way", EXITS)
def test_only_actor_of_a_pool_that_leaves_by_itself_comes_back(cluster, tmp_path: Path, way: str) -> None:
    chain, config, ledger = line(tmp_path)
    assert chain[0].pool.actors == 1
    tally = run_line(work(["a cup", way, "a chair", "a lamp"]), chain, config.line, ledger)
    assert (tally.done, tally.failed) == (3, 1)
    [letter] = ledger.rows(DEAD)
    row_failed = way == "sys.exit"
    assert (letter["prompt_id"], letter["error_type"]) == ("p1", "SystemExit" if row_failed else "worker_killed")
    assert ("test_line.py" in (letter["error_trace"] or "")) == row_failed


def test_second_run_makes_only_what_is_missing(cluster, tmp_path: Path) -> None:
    chain, config, ledger = line(tmp_path)
    run_line(work(["a cup", "a chair"]), chain, config.line, ledger)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}
    chain, config, ledger = line(tmp_path)
    tally = run_line(work(["a cup", "a chair", "a lamp"]), chain, config.line, ledger)
    assert tally.total == tally.done == 1
    assert sorted(ids(tmp_path, ASSETS)) == ["p0", "p1", "p2"]
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_line_gives_up_when_most_rows_fail(cluster, tmp_path: Path) -> None:
    chain, config, ledger = line(tmp_path, max_failed_share=0.5)
    with pytest.raises(TooManyFailures, match=r"line\.max_failed_share"):
        run_line(work(["raise"] * 60), chain, config.line, ledger)
    assert len(ids(tmp_path, DEAD)) >= 20


def test_killer_and_hanging_row_are_found_in_a_batch_within_one_pass(cluster, tmp_path: Path, monkeypatch) -> None:
    texts = ["a cup", "kill me", "a box", "hang here", "a car", "a hat", "a pot", "a pan"]
    chain, config, ledger = line(tmp_path, rows_per_block=4)
    chain[0].pool = dataclasses.replace(chain[0].pool, row_timeout=2.0)
    passes = []
    monkeypatch.setattr("factory.line.run.build", lambda *a, **k: passes.append(k) or build(*a, **k))
    tally = run_line(work(texts), chain, config.line, ledger)
    assert (tally.done, tally.failed, len(passes)) == (6, 2, 1)
    letters = {row["prompt_id"]: row for row in ledger.rows(DEAD)}
    assert sorted(letters) == ["p1", "p3"]
    assert (letters["p1"]["error_type"], letters["p3"]["error_type"]) == ("worker_killed", "row_timeout")
    assert letters["p1"]["attempt"] == 2 + MAX_DEATHS
    assert letters["p3"]["host"] == socket.gethostname()


def test_killer_in_a_line_of_one_stage_takes_no_neighbour_along(cluster, tmp_path: Path, monkeypatch) -> None:
    passes = []
    monkeypatch.setattr("factory.line.run.build", lambda *a, **k: passes.append(k) or build(*a, **k))
    arguments = {"config": FactoryConfig(), "out": str(tmp_path), "run_id": "r"}
    chain, pool = [Step(actor=Sign, pool=Pool(cpus=0.1, batch=4), arguments=arguments)], Pool(batch=4)
    ledger = Ledger(open_store(str(tmp_path)))
    tally = run_line(work(["a cup", "kill me", "raise this", "a box"]), chain, line_config(pool, "local"), ledger)
    assert (tally.done, tally.failed, len(passes)) == (2, 2, 1)
    assert {row["prompt_id"]: row["length"] for row in ledger.rows(ASSETS)} == {"p0": 5, "p3": 5}
    letters = {row["prompt_id"]: row for row in ledger.rows(DEAD)}
    assert (letters["p1"]["error_type"], letters["p1"]["attempt"]) == ("worker_killed", MAX_DEATHS)
    assert (letters["p2"]["error_type"], letters["p2"]["error_message"]) == ("ValueError", "no ink")


def test_processes_at_their_limits_are_replaced_and_nothing_is_lost(cluster, tmp_path: Path) -> None:
    chain, config, ledger = line(tmp_path)
    chain[0].pool = dataclasses.replace(chain[0].pool, max_rows=2)
    tally = run_line(work(["a cup"] * 6), chain, config.line, ledger)
    assert (tally.done, tally.failed) == (6, 0)
    assert len({row["device"] for row in ledger.rows(ASSETS)}) == 3
