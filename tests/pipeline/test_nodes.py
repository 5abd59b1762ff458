"""Several nodes on this machine: one is taken away while the line runs, and stages keep to the nodes they ask for."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import ray
from ray import cloudpickle
from ray.cluster_utils import Cluster

from factory.config import FactoryConfig, LineConfig, Pool
from factory.ledger import ASSETS, DEAD, Ledger
from factory.pipeline import PromptWork, Step, run_line
from factory.prompts import Prompt
from factory.schema import assets_schema, pack
from factory.stage import Row, Stage
from factory.stages import Commit
from factory.store import open_store

cloudpickle.register_pickle_by_value(sys.modules[__name__])
pytestmark = pytest.mark.timeout(600)
COUNT = 24


class Think(Stage):
    """Takes its time, and says on which node."""

    name = "image"

    def process(self, rows: list[Row]) -> None:
        for row in rows:
            time.sleep(0.4)
            row["device"] = ray.get_runtime_context().get_node_id()
            row["image"] = pack(np.zeros((4, 4, 3), np.uint8))


class Keep(Commit):
    """Commits a row without files, with the node of the stage before in `device` and its own in `host`."""

    def write(self, row: Row):
        schema = assets_schema([])
        node = ray.get_runtime_context().get_node_id()
        return {name: row.get(name) for name in schema.names} | {"image": None, "host": node}, schema


@pytest.fixture
def cluster():
    """A head with CPUs only, and two nodes labelled as having GPUs."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "object_store_memory": 100 << 20})
    nodes = [
        made.add_node(num_cpus=2, labels={"kind": "gpu"}, object_store_memory=100 << 20, num_gpus=1) for _ in range(2)
    ]
    ray.init(made.address, logging_level="ERROR", log_to_driver=False)
    yield made, nodes
    ray.shutdown()
    made.shutdown()


def test_a_node_that_goes_takes_no_prompt_along(cluster, tmp_path: Path) -> None:
    made, nodes = cluster
    config = FactoryConfig(line=LineConfig(address="auto"))
    think = Pool(actors=1, max_actors=2, cpus=1, gpus=1, labels=("kind=gpu",))
    keep = {"config": config, "out": str(tmp_path), "run_id": "r"}
    chain = [
        Step(actor=Think, pool=think, arguments={"config": config}),
        Step(actor=Keep, pool=Pool(cpus=0.1), arguments=keep),
    ]
    ledger = Ledger(open_store(str(tmp_path)))
    gone: list[str] = []

    def take_away() -> None:
        """Once some rows are through, the node that made them goes."""
        store = open_store(str(tmp_path))
        while len(list(store.keys("commits/"))) < 4:
            time.sleep(0.1)
        first = next(iter(store.keys("commits/")))
        import io

        import pyarrow.parquet as pq

        busy = pq.read_table(io.BytesIO(store.get(first)))["device"][0].as_py()
        made.remove_node(next(node for node in nodes if node.node_id == busy), allow_graceful=False)
        gone.append(busy)

    thread = threading.Thread(target=take_away)
    thread.start()
    prompts = [Prompt(prompt_id=f"p{n}", prompt="x", seed=n) for n in range(COUNT)]
    tally = run_line(PromptWork(prompts=prompts, config=config), chain, config.line, ledger)
    thread.join()
    rows = list(ledger.rows(ASSETS))
    assert sorted(row["prompt_id"] for row in rows) == sorted(f"p{n}" for n in range(COUNT))
    assert list(ledger.rows(DEAD)) == []
    assert tally.done + tally.failed >= COUNT - 1
    workers = {node.node_id for node in nodes}
    assert {row["device"] for row in rows} == workers
    assert gone[0] in workers
