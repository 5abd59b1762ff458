"""Several nodes on this machine: some go while the line runs, and stages keep to the nodes they ask for."""

from __future__ import annotations

import io
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from ray import cloudpickle
from ray.cluster_utils import Cluster

from factory.config.settings import FactoryConfig
from factory.ledger.ledger import ASSETS, DEAD, Ledger
from factory.ledger.schemas import pack
from factory.line.events import EventLog
from factory.line.placement import Pool
from factory.line.progress import Display
from factory.line.run import run_line
from factory.line.settings import LineConfig
from factory.line.stage import Row, Stage
from factory.line.step import Step
from factory.prompts.row import Prompt
from factory.prompts.work import PromptWork
from factory.stages.asset_table import assets_schema
from factory.stages.chain import written_columns
from factory.stages.columns import IMAGE
from factory.stages.commit import Commit
from factory.storage.store import open_store

cloudpickle.register_pickle_by_value(sys.modules[__name__])
pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]
COUNT = 30


class Think(Stage):
    """Takes its time, and says on which node."""

    name, writes = "image", (IMAGE, pa.field("device", pa.string()))

    def process(self, rows: list[Row]) -> None:
        for row in rows:
            time.sleep(0.4)
            row["device"] = ray.get_runtime_context().get_node_id()
            row["image"] = pack(np.zeros((4, 4, 3), np.uint8))


class ThinkWatched(Think):
    """Stops before a row once four rows are made until a node has vanished, and once twelve are until one is drained.

    Args:
        markers: a folder, with empty files `vanished` and `drained` once that has happened; gets a file `made-ROW` of
            every row, and `vanished-NODE` or `drained-NODE` where an actor waits for it.
    """

    def __init__(self, config: Any, markers: Path, threads: int = 1, board: Any = None) -> None:
        self.markers = markers
        super().__init__(config, threads, board)

    def process(self, rows: list[Row]) -> None:
        for made, event in ((4, "vanished"), (12, "drained")):
            while len(list(self.markers.glob("made-*"))) >= made and not (self.markers / event).exists():
                (self.markers / f"{event}-{ray.get_runtime_context().get_node_id()}").touch()
                time.sleep(0.05)
        super().process(rows)
        for row in rows:
            (self.markers / f"made-{row['prompt_id']}").touch()


class ThinkLong(Think):
    """Long enough for the stage behind to be idle when Ray Data hears of a drained node."""

    def process(self, rows: list[Row]) -> None:
        time.sleep(5)
        super().process(rows)


class Keep(Commit):
    """Commits a row without files, with the node of the stage before in `device` and its own in `host`."""

    def write(self, row: Row):
        schema = assets_schema(written_columns())
        node = ray.get_runtime_context().get_node_id()
        return {name: row.get(name) for name in schema.names} | {"image": None, "host": node}, schema


@pytest.fixture
def cluster() -> Iterator[tuple[Cluster, list[Any]]]:
    """A head with CPUs only, and three nodes labelled as having GPUs."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "object_store_memory": 100 << 20})
    nodes = [
        made.add_node(num_cpus=2, labels={"kind": "gpu"}, object_store_memory=100 << 20, num_gpus=1) for _ in range(3)
    ]
    ray.init(made.address, logging_level="ERROR", log_to_driver=False)
    yield made, nodes
    ray.shutdown()
    made.shutdown()


def drain(address: str, node: str) -> None:
    """As `ray drain-node` does when a spot notice has come."""
    from ray.core.generated import autoscaler_pb2

    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    accepted, why = ray._raylet.GcsClient(address=address).drain_node(node, reason, "spot notice", 0)
    assert accepted, why


@contextmanager
def beside(function: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run a function in a thread that is told when the block has ended, and is waited for."""
    ended = threading.Event()
    thread = threading.Thread(target=function, args=(ended,))
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_nodes_that_vanish_or_are_drained_take_no_prompt_along(
    cluster: tuple[Cluster, list[Any]], tmp_path: Path
) -> None:
    made, nodes = cluster
    config = FactoryConfig(line=LineConfig(address="auto"))
    out, markers = str(tmp_path / "out"), tmp_path / "markers"
    markers.mkdir()
    think = Pool(actors=1, max_actors=2, cpus=1, gpus=1, labels=("kind=gpu",))
    chain = [
        Step(actor=ThinkWatched, pool=think, arguments={"config": config, "markers": markers}),
        Step(actor=Keep, pool=Pool(cpus=0.1), arguments={"config": config, "out": out, "run_id": "r"}),
    ]
    store = open_store(out)
    ledger, events = Ledger(store), EventLog(store, "r")
    gone: list[str] = []

    def waiting_node(event: str) -> str | None:
        """A node whose rows are committed, and where an actor waits for the event with another; None without any."""
        tables = [pq.read_table(io.BytesIO(store.get(key))) for key in store.keys("commits/")]
        nodes = (table["device"][0].as_py() for table in tables)
        return next((node for node in nodes if (markers / f"{event}-{node}").exists()), None)

    def vanish(node: str) -> None:
        made.remove_node(next(known for known in nodes if known.node_id == node), allow_graceful=False)

    def take_away(ended: threading.Event) -> None:
        """One node vanishes, another is drained."""
        for event, end in (("vanished", vanish), ("drained", partial(drain, made.address))):
            while not (node := waiting_node(event)):
                if ended.wait(0.1):
                    return
            gone.append(node)
            end(node)
            (markers / event).touch()

    prompts = [Prompt(prompt_id=f"p{n}", prompt="x", seed=n) for n in range(COUNT)]
    work, display = PromptWork(prompts=prompts, config=config), Display(events=events)
    with beside(take_away):
        tally = run_line(work, chain, config.line, ledger, display)
    rows = list(ledger.rows(ASSETS))
    assert sorted(row["prompt_id"] for row in rows) == sorted(f"p{n}" for n in range(COUNT))
    assert list(ledger.rows(DEAD)) == []
    assert tally.done + tally.failed >= COUNT - 1
    assert len(gone) == 2
    assert {row["device"] for row in rows} == {node.node_id for node in nodes} >= set(gone)
    left = [event for event in map(json.loads, store.get("events.jsonl").splitlines()) if event["event"] == "node_left"]
    assert "image" in [event["stage"] for event in left]


def test_the_last_actor_of_a_stage_leaves_a_node_that_is_drained_for_long(
    cluster: tuple[Cluster, list[Any]], tmp_path: Path
) -> None:
    made, nodes = cluster
    config = FactoryConfig(line=LineConfig(address="auto"))
    keep = {"config": config, "out": str(tmp_path), "run_id": "r"}
    chain = [
        Step(actor=ThinkLong, pool=Pool(cpus=1), arguments={"config": config}),
        Step(actor=Keep, pool=Pool(cpus=0.1, labels=("kind=gpu",)), arguments=keep),
    ]
    store = open_store(str(tmp_path))
    ledger = Ledger(store)

    def drain_keeper(ended: threading.Event) -> None:
        while len(keys := list(store.keys("commits/"))) < 2:
            if ended.wait(0.1):
                return
        drain(made.address, pq.read_table(io.BytesIO(store.get(keys[0])))["host"][0].as_py())

    prompts = [Prompt(prompt_id=f"p{n}", prompt="x", seed=n) for n in range(6)]
    with beside(drain_keeper):
        run_line(PromptWork(prompts=prompts, config=config), chain, config.line, ledger)
    rows = list(ledger.rows(ASSETS))
    assert sorted(row["prompt_id"] for row in rows) == sorted(f"p{n}" for n in range(6))
    assert list(ledger.rows(DEAD)) == []
    hosts = {row["host"] for row in rows}
    assert len(hosts) == 2
    assert hosts < {node.node_id for node in nodes}
