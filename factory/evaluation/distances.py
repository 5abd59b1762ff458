"""Measure distances between a run's views and a reference set: `distances_of`, by a `Reference`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from eval.distributions import FeatureSet, distances
from eval.protocols import Protocol
from eval.reference import objects_of, reference_features, revision_of
from eval.score_columns import VIEW_SETS
from factory.ledger.reader import SCORES, LedgerReader
from factory.storage.interface import ReadableStore, StorageConfig
from factory.storage.read_only import open_read_only

if TYPE_CHECKING:
    from eval.judges.features import FeatureModel


@dataclass(kw_only=True, slots=True)
class Reference:
    """A folder of pictures that a run is compared with."""

    store: ReadableStore
    folder: str
    objects: dict[str, list[str]]
    revision: str

    @staticmethod
    def open(address: str, storage: StorageConfig) -> Reference:
        """The pictures of a folder, local or s3://bucket/folder; ValueError when there are none."""
        root, _, folder = address.rstrip("/").rpartition("/")
        store = open_read_only(root or ("/" if address.startswith("/") else "."), storage)
        objects = objects_of(key.removeprefix(f"{folder}/") for key in store.keys(f"{folder}/"))
        found = Reference(store=store, folder=folder, objects=objects, revision="")
        return replace(found, revision=revision_of(objects, found.read))

    def read(self, name: str) -> bytes:
        """A picture's bytes."""
        return self.store.get(f"{self.folder}/{name}")

    def statement(self) -> dict[str, Any]:
        """What stands in the protocol."""
        return {"pictures": sum(map(len, self.objects.values())), "objects": len(self.objects), "sha256": self.revision}

    def features(self, model: FeatureModel, protocol: Protocol) -> FeatureSet:
        """Its features; ValueError for pictures of another size than the protocol's."""
        return reference_features(model, self.objects, self.read, protocol.size, protocol.background)


def distances_of(
    ledger: LedgerReader, models: Sequence[FeatureModel], reference: Sequence[FeatureSet]
) -> dict[str, dict[str, Any]]:
    """By "fd_renders_MODEL" and the like the distance, its interval, or the reason why there is none.

    Kinds of views that no asset has are left out.
    """
    found: dict[str, dict[str, Any]] = {}
    for model, theirs in zip(models, reference, strict=True):
        for what in VIEW_SETS:
            ours = FeatureSet("the run")
            for features in _features(ledger, f"features_{what}_{model.name}", theirs.dim):
                ours.add(features)
            if ours.objects:
                named = distances(ours, theirs)
                found |= {f"{kind}_{what}_{model.name}": asdict(one) for kind, one in named.items()}
    return found


def _features(ledger: LedgerReader, column: str, dim: int) -> Iterator[np.ndarray]:
    for row in ledger.rows(SCORES, [column]):
        if row[column]:
            yield np.asarray(row[column], np.float32).reshape(-1, dim)
