"""Hold one training run, with its settings, folders, order of data and damaged shards: `Run`, `Quarantine`."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from factory.storage.local import LocalStore
from factory.storage.store import StorageConfig, Store, open_store, read_json
from factory.training.finetune.settings import WorkersConfig
from factory.training.finetune.targets import TARGETS, needed
from factory.training.shards.index import Index
from model.config import Share, TrainConfig

if TYPE_CHECKING:
    from factory.training.shards.draw_order import Reader
    from model.training import Setting

STOPPED, DAMAGED, CAPTIONS = "stopped.json", "damaged.json", "captions.json"
FAILURE = "failure.txt"
"""The traceback of what ended training, where that was no reason of its own."""
QUARANTINE = "quarantine"


@dataclass(kw_only=True, slots=True)
class Run:
    """Everything that a worker needs to know."""

    target: str
    out: str
    weights: str
    train: TrainConfig
    workers: WorkersConfig
    index: Index
    validation: Index | None
    built_on: dict[str, str] = field(default_factory=dict)
    """What of the weights stays as it is, by folder, see `WeightFolder.fingerprint`."""
    storage: StorageConfig = field(default_factory=StorageConfig)

    @property
    def store(self) -> Store:
        """The output folder."""
        return open_store(self.out, self.storage)

    @property
    def stopped(self) -> str | None:
        """Why the workers found that going on would be wrong; None where they did not."""
        found = read_json(self.store, STOPPED)
        return found["reason"] if found else None

    @property
    def captions(self) -> list[str]:
        """Every caption of the training assets when the run began: a vocabulary made of them stays the same."""
        begun = read_json(self.store, CAPTIONS)
        return begun["captions"] if begun else sorted(set(self.index.captions.values()))

    def share(self) -> Share:
        """How a step is divided; raises ValueError when it does not come out even."""
        return Share.of(self.train, TARGETS[self.target].drawing.batch, self.workers.workers)

    def reader(self, rank: int = 0, workers: int = 1, index: Index | None = None) -> Reader:
        """Reads the stream of a worker."""
        from factory.training.shards.draw_order import Order, Reader

        order = Order(index=index or self.index, seed=self.train.seed, rank=rank, workers=workers)
        return Reader(order=order, drawing=TARGETS[self.target].drawing, note=Quarantine(self.store))


@dataclass(slots=True)
class Quarantine:
    """Names shards and rows that cannot be used, one file each in the output folder."""

    store: Store

    def __call__(self, shard: str, reason: str) -> None:
        from factory.ledger.keys import digest

        self.store.put(f"{QUARANTINE}/{digest(shard)}.json", json.dumps({"shard": shard, "reason": reason}).encode())

    def listed(self) -> dict[str, str]:
        """Reasons by shard."""
        rows = [json.loads(self.store.get(key)) for key in self.store.keys(f"{QUARANTINE}/")]
        return {row["shard"]: row["reason"] for row in rows}


def fetch(url: str, names: list[str], folder: Path, storage: StorageConfig | None = None) -> Path:
    """A local folder with these weight folders of `url`; `folder` takes the copies of a remote one."""
    store = open_store(url, storage)
    if isinstance(store, LocalStore):
        return Path(store.root)
    for name in names:
        for key in store.keys(f"{name}/"):
            (folder / key).parent.mkdir(parents=True, exist_ok=True)
            (folder / key).write_bytes(store.get(key))
    return folder


def setting_of(run: Run, scratch: Path) -> Setting:
    """What the target is built from, its weights fetched into `scratch`."""
    from model.training import Setting

    target = TARGETS[run.target]
    read = [*needed(target, run.train.from_weights)]
    weights = fetch(run.weights, read, scratch / "weights", run.storage)
    return Setting(weights=weights, config=run.train, captions=run.captions, size=run.index.size, scratch=scratch)
