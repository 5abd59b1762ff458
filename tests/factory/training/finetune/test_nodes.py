"""A node is lost while it trains, and nobody can tell from the result."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from factory.storage.store import StorageConfig
from factory.training.finetune import driver
from factory.training.finetune.driver import train
from factory.training.finetune.prepare import prepare
from factory.training.finetune.recorder import read_log
from factory.training.finetune.run import Run
from factory.training.finetune.settings import WorkersConfig
from model.checkpoints import Checkpoints
from model.config import TrainConfig

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]
STEPS, SAVE_EVERY = 8, 3


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Cluster, list[Any]]]:
    """A head without CPUs and three nodes of two, of which two are enough."""
    monkeypatch.setenv("RAY_worker_niceness", "0")
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 100 << 20})
    nodes = [made.add_node(num_cpus=2, object_store_memory=100 << 20) for _ in range(3)]
    ray.init(made.address, logging_level="ERROR", log_to_driver=False)
    yield made, nodes
    ray.shutdown()
    made.shutdown()


def run_of(shards: Path, weights: Path, out: Path) -> Run:
    config = TrainConfig(num_steps=STEPS, save_every=SAVE_EVERY, log_every=1, warmup_steps=3, precision="float32",
                         validation_turntables=0)  # fmt: skip
    workers = WorkersConfig(workers=2, address="auto")
    return prepare("temporal", str(shards), str(weights), str(out), "train", config, workers, StorageConfig())


def test_a_lost_node_changes_nothing(
    cluster: tuple[Cluster, list[Any]], tmp_path: Path, tiny_shards: Path, pocket_writer, monkeypatch
) -> None:
    made, nodes = cluster
    calm, hit = (run_of(tiny_shards, pocket_writer(tmp_path / f"{n}-w"), tmp_path / n) for n in ("calm", "hit"))
    assert train(calm) == 0
    work, homes, gone = driver.work, tmp_path / "homes", tmp_path / "gone"
    homes.mkdir()

    def waiting(config: dict[str, Any]) -> None:
        """Tells where it works, and waits after the first checkpoint until a node has gone."""
        from model.training import Training

        group = f"{Checkpoints(hit.store).steps()[-1:]}"
        (homes / f"{ray.get_runtime_context().get_node_id()} {group}").touch()
        advance = Training.advance

        def late(self: Any, batches: Any) -> Any:
            while self.step == SAVE_EVERY + 1 and not gone.exists():
                time.sleep(0.05)
            return advance(self, batches)

        Training.advance = late
        work(config)

    def take_away() -> None:
        while Checkpoints(hit.store).steps()[-1:] < [SAVE_EVERY]:
            time.sleep(0.1)
        home = next(node for node in nodes if list(homes.glob(f"{node.node_id} *")))
        made.remove_node(home, allow_graceful=False)
        gone.touch()

    monkeypatch.setattr(driver, "work", waiting)
    thread = threading.Thread(target=take_away, daemon=True)
    thread.start()
    assert train(hit) == 0
    thread.join()
    assert list(homes.glob(f"* [[]{SAVE_EVERY}[]]")), "no other group of workers has begun at the checkpoint"
    rows, expected = read_log(hit.store), read_log(calm.store)
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in expected], abs=1e-4)
