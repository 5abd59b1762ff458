"""Keep what a data set has decided about each asset, so that a second call adds what is new: `Index`.

A commit is `index/part-N.parquet`; its shards are written before and do not count without it. A row of it has the plain
columns of the asset's run, its embeddings, its clusters, and where it went.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from factory.outputs.dataset.leaders import Leaders, Vectors
from factory.storage.interface import Store

Row = dict[str, Any]
FOLDER, DATA = "index", "data"
KEPT, DUPLICATE = "kept", "duplicate"
VECTORS = ("image_vector", "text_vector")


def kept_of(decisions: pa.Table) -> pa.Table:
    """The decisions on assets that are in the data set."""
    return decisions.filter(pc.field("decision") == KEPT)


class Clusters:
    """Clusters by one kind of embedding, each called after the asset that came first.

    Args:
        threshold: cosine, in (0, 1].
        dimension: of the vectors.

    Attributes:
        taken: the clusters that have an asset in the data set.
    """

    def __init__(self, threshold: float, dimension: int) -> None:
        self.taken: set[str] = set()
        self._leaders = Leaders(threshold, dimension)
        self._names: list[str] = []

    def add(self, vectors: Vectors, names: Sequence[str]) -> list[str]:
        """The clusters of vectors [B,D]; one that starts a cluster gives it its name."""
        found = []
        for number, name in zip(self._leaders.add(vectors).tolist(), names):
            if number == len(self._names):
                self._names.append(name)
            found.append(self._names[number])
        return found


class Index:
    """The commits of a data set.

    Args:
        store: its folder.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._parts = [pq.read_table(io.BytesIO(store.get(key))) for key in store.keys(f"{FOLDER}/")]
        self.ids = {name for part in self._parts for name in part["asset_id"].to_pylist()}

    @property
    def number(self) -> int:
        """Of the next commit."""
        return len(self._parts)

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Every decision so far, without embeddings; nulls where a run had no such column."""
        parts = [part.drop_columns(list(VECTORS)) for part in self._parts]
        table = pa.concat_tables(parts, promote_options="permissive")
        return table.select(columns) if columns else table

    def replay(self, kind: str, clusters: Clusters) -> None:
        """Bring clusters to where they were after the last commit; `kind`: image or text."""
        for part in self._parts:
            known = part.filter(part[f"{kind}_vector"].is_valid())
            if len(known):
                values = known[f"{kind}_vector"].combine_chunks().flatten().to_numpy()
                clusters.add(values.reshape(len(known), -1), known[f"{kind}_cluster"].to_pylist())
            clusters.taken |= set(kept_of(part)[f"{kind}_cluster"].to_pylist())

    def commit(self, decisions: pa.Table) -> None:
        """Write a part; whatever it names must be there already."""
        stream = io.BytesIO()
        pq.write_table(decisions, stream, compression="zstd", write_page_checksum=True)
        self.store.put(f"{FOLDER}/part-{self.number:05d}.parquet", stream.getvalue())
        self._parts.append(decisions)
        self.ids |= set(decisions["asset_id"].to_pylist())

    def sweep(self) -> None:
        """Remove shards that no commit names, which an interrupted call left."""
        shards = {name for part in self._parts for name in part["shard"].to_pylist()}
        for key in list(self.store.keys(f"{DATA}/")):
            if key not in shards:
                self.store.delete(key)
