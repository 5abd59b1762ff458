"""Build a data set from collected assets: embed, cluster, split, write, commit: `Builder`.

Every file of an asset is read once and written once, into a shard. A commit holds all decisions since the one before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pyarrow as pa

from factory.line.cpus import available_cpus
from factory.outputs.dataset.choose import split_of
from factory.outputs.dataset.contact_sheet import Sheet
from factory.outputs.dataset.embed import Captions, Embedder, Pixels, pixels_of
from factory.outputs.dataset.index import DATA, DUPLICATE, KEPT, Clusters, Index
from factory.outputs.dataset.samples import Sampler, schema_of
from factory.outputs.dataset.settings import SPLITS, DatasetConfig
from factory.outputs.dataset.shards import SUFFIX, shard_bytes, weight_of
from factory.storage.interface import Store

Row = dict[str, Any]
BATCH = 256
"""Assets that are embedded at a time."""


@dataclass(kw_only=True, slots=True)
class Outcome:
    """What a call added."""

    kept: int = 0
    duplicates: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)
    """Assets that could not be read, and why; the next call tries them again."""


class Builder:
    """Adds assets to a data set.

    Args:
        store: its folder. config: what it takes and holds. index: its commits so far.
        sampler: reads assets. embedder: of pictures and prompts. sheet: gets every picture that is kept.
        captions: who writes them, see `_caption`.

    Attributes:
        written: SHA-256 and bytes of the shards so far, by name.
    """

    def __init__(
        self, store: Store, config: DatasetConfig, index: Index, sampler: Sampler, embedder: Embedder, sheet: Sheet,
        captions: Captions | None = None,
    ) -> None:  # fmt: skip
        self.store, self.config, self.index, self.sampler = store, config, index, sampler
        self.embedder, self.sheet, self.captions = embedder, sheet, captions
        self.schema, self.outcome = schema_of(config), Outcome()
        thresholds = {"image": config.image_threshold, "text": config.text_threshold}
        self.clusters = {kind: Clusters(value, embedder.dimension) for kind, value in thresholds.items()}
        for kind, clusters in self.clusters.items():
            index.replay(kind, clusters)
        self.written: dict[str, tuple[str, int]] = {}
        self._waiting: list[Row] = []
        self._decided: list[Row] = []
        self._weight = 0

    def add(self, assets: pa.Table) -> Outcome:
        """Add those of collected assets that the index does not know; returns what was done."""
        fresh = assets.filter(
            pa.array([name not in self.index.ids for name in assets["asset_id"].to_pylist()], pa.bool_())
        )
        with ThreadPoolExecutor(available_cpus() + 1) as pool:
            for batch in _batches(_rows(fresh), BATCH):
                self._add_batch(batch, pool)
                if self._weight >= self.config.shard_mb << 20:
                    self._commit()
        if self._decided:
            self._commit()
        return self.outcome

    def _add_batch(self, batch: list[Row], pool: ThreadPoolExecutor) -> None:
        found = list(pool.map(self._picture, batch))
        known = [(row, *picture) for row, picture in zip(batch, found) if picture is not None]
        if not known:
            return
        self._describe([row for row, _, _ in known], [pixels for _, _, pixels in known])
        rows = [(row, picture) for row, picture, _ in known]
        undecided = rows
        while undecided:
            keep = [(row, picture) for row, picture in undecided if self._is_first(row)]
            failed = self._keep(keep, list(pool.map(lambda pair: self._made(*pair), keep)))
            dropped = [(row, picture) for row, picture in undecided if row["decision"] == DUPLICATE]
            if not failed:
                self.outcome.duplicates += len(dropped)
            undecided = dropped if failed else []  # one that cannot be read stands for no other
        self._decided += [row for row, _ in rows if row["asset_id"] not in self.outcome.unreadable]

    def _keep(self, keep: Sequence[tuple[Row, bytes]], made: Sequence[Row | None]) -> bool:
        """Put samples where the next commit takes them from; whether one could not be made."""
        for (row, picture), sample in zip(keep, made):
            if sample is None:
                for kind, clusters in self.clusters.items():
                    clusters.taken.discard(row[f"{kind}_cluster"])
                continue
            self._waiting.append(sample)
            self._weight += weight_of(sample)
            self.sheet.offer(row["asset_id"], row["prompt"] or row["prompt_id"], picture)
        return None in made

    def _describe(self, rows: Sequence[Row], pictures: Sequence[Pixels]) -> None:
        """Give rows their captions, split, embeddings and clusters."""
        prompts = [row["prompt"] or "" for row in rows]
        self._caption(rows, prompts, pictures)
        images, texts = self.embedder.pictures(pictures), self.embedder.texts(prompts)
        names = [row["asset_id"] for row in rows]
        told = [k for k, prompt in enumerate(prompts) if prompt]
        text_clusters = dict(zip(told, self.clusters["text"].add(texts[told], [names[k] for k in told])))
        image_clusters = self.clusters["image"].add(images, names)
        for k, row in enumerate(rows):
            row["split"] = split_of(prompts[k], row["prompt_id"], self.config.validation, self.config.test)
            row |= {"image_vector": images[k], "text_vector": texts[k] if k in text_clusters else None}
            row |= {"image_cluster": image_clusters[k], "text_cluster": text_clusters.get(k)}

    def _caption(self, rows: Sequence[Row], prompts: Sequence[str], pictures: Sequence[Pixels]) -> None:
        """Prompts are captions; the captioner writes those of assets without one, with `captioner.replace` of all."""
        for row, prompt in zip(rows, prompts):
            row |= {"caption": prompt or None, "caption_by": "prompt" if prompt else None}
        wanted = [k for k, prompt in enumerate(prompts) if self.config.captioner.replace or not prompt]
        if self.captions and wanted:
            for k, text in zip(wanted, self.captions([pictures[k] for k in wanted])):
                rows[k].update(caption=text, caption_by=self.captions.name)

    def _is_first(self, row: Row) -> bool:
        """Decide whether a row is kept: no cluster that counts has an asset in the data set yet."""
        counted = {"either": ("image", "text"), "none": ()}.get(self.config.drop, (self.config.drop,))
        kept = not any(row[f"{kind}_cluster"] in self.clusters[kind].taken for kind in counted)
        row["decision"] = KEPT if kept else DUPLICATE
        if kept:
            for kind, clusters in self.clusters.items():
                clusters.taken |= {row[f"{kind}_cluster"]} - {None}
        return kept

    def _picture(self, row: Row) -> tuple[bytes, Pixels] | None:
        """The picture of an asset, encoded and decoded; None where it cannot be read."""
        try:
            data = self.sampler.picture(row)
            return data, pixels_of(data)
        except ValueError as error:
            self.outcome.unreadable[row["asset_id"]] = str(error)
            return None

    def _made(self, row: Row, picture: bytes) -> Row | None:
        try:
            return self.sampler.row(row, picture)
        except ValueError as error:
            self.outcome.unreadable[row["asset_id"]] = str(error)
            return None

    def _commit(self) -> None:
        """Write a shard for each split that has rows, then the part of the index that names them."""
        names = {}
        for split in SPLITS:
            rows = [row for row in self._waiting if row["split"] == split]
            if rows:
                container = self.config.container
                names[split] = f"{DATA}/{split}-{self.index.number:05d}.{SUFFIX[container]}"
                notes = {"generator": "im3d-factory", "settings": self.config.identity()}
                data = shard_bytes(rows, self.schema, container, notes)
                self.store.put(names[split], data)
                self.written[names[split]] = (hashlib.sha256(data).hexdigest(), len(data))
        for row in self._decided:
            row["shard"] = names[row["split"]] if row["decision"] == KEPT else None
        self.index.commit(_decisions(self._decided, self.embedder.dimension))
        self.outcome.kept += len(self._waiting)
        self._waiting, self._decided, self._weight = [], [], 0


def _rows(table: pa.Table) -> Iterator[Row]:
    for batch in table.to_batches(BATCH):
        yield from batch.to_pylist()


def _batches(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    rows = iter(rows)
    while batch := list(islice(rows, size)):
        yield batch


def _decisions(rows: Sequence[Mapping[str, Any]], dimension: int) -> pa.Table:
    """Rows of the index; vectors are stored with 32 bits."""
    vectors = ("image_vector", "text_vector")
    table = pa.Table.from_pylist([{k: v for k, v in row.items() if k not in vectors} for row in rows])
    table = table.select(
        [name for name, kind in zip(table.column_names, table.schema.types) if not pa.types.is_null(kind)]
    )
    for name in ("shard", "text_cluster"):
        if name not in table.column_names:
            table = table.append_column(name, pa.nulls(len(table), pa.string()))
    for name in vectors:
        kind = pa.list_(pa.float32(), dimension)
        table = table.append_column(name, pa.array([row[name] for row in rows], kind))
    return table
