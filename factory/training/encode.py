"""Encode turntables as latents of the pocket autoencoder, once, for training to read: the stage `EncodeGroup`.

    row group of renders ── V augmented copies ── EncodeGroup ──▶ OUT/renders/part-*.parquet, a row a copy

Hue, mirror and caption are drawn once for each copy and lie in it; start view and choice of views are drawn in
training, as from pictures. The shards name the encoder; another one is refused.
"""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from factory.ledger.ledger import Ledger
from factory.line.output_folder import OutputFolder
from factory.line.stage import Row
from factory.storage.interface import ReadableStore, Store
from factory.storage.store import open_store
from factory.training.finetune.run import fetch
from factory.training.shards.index import COLUMNS, ENCODER, SHAPE, Chunk
from factory.training.shards.row_group_line import GROUP_RESULT, ROWS_PER_PART, GroupStage, results
from model.config import Drawing

if TYPE_CHECKING:
    from model.pocket.data import Batch, Turntable

ENCODINGS = "encoded"
"""Folder of the results."""
MADE_OF = b"im3d.made_of"
"""Metadata of shards of latents: the name of the row group of renders."""
AUTOENCODER = "autoencoder/diffusion_pytorch_model.safetensors"
ENCODED = pa.schema(
    [*GROUP_RESULT, ("path", pa.string()), ("turntables", pa.int32()), ("seconds_encode", pa.float64())]
)


@dataclass(kw_only=True, slots=True)
class Encoding:
    """How turntables are encoded."""

    weights: str
    """Folder of weight folders with `autoencoder`, local or s3://."""
    variants: int
    """Augmented copies of every turntable, >= 1."""
    seed: int


def fingerprint(weights: ReadableStore) -> str | None:
    """Which encoder `autoencoder` in a folder of weights is: the first 16 digits of its SHA-256; None without one.

    The decoder does not count: latents stay what they are when it is trained further.
    """
    from safetensors.numpy import load

    try:
        tensors = load(weights.get(AUTOENCODER))
    except KeyError:
        return None
    digest = hashlib.sha256()
    for name in sorted(name for name in tensors if name.startswith("encoder.")):
        digest.update(name.encode() + np.ascontiguousarray(tensors[name], np.float32).tobytes())
    return digest.hexdigest()[:16]


class EncodeGroup(GroupStage):
    """A row group of renders to a shard of latents, on a GPU where the pool gives one; `config`: see `Encoding`."""

    name, schema = "encode", ENCODED

    def load(self) -> None:
        """Load the autoencoder, fetched into a temporary folder, and say which one it is."""
        from model.pocket.load import load_autoencoder

        with tempfile.TemporaryDirectory(prefix="im3d-encode-") as scratch:
            weights = fetch(self.config.weights, ["autoencoder"], Path(scratch), self.storage)
            self.model: Any = load_autoencoder(weights / "autoencoder")
            self.encoder = fingerprint(open_store(str(weights)))
        self.model.to(self.device())

    def make(self, row: Row) -> Row:
        """Where the latents lie, and of how many turntables; nothing is done where they lie there already."""
        path = f"{row['key'].removesuffix('.parquet')}-{row['group']:04d}.parquet"
        known = self._turntables_in(path, row["group_id"])
        if known is not None:
            return {"path": path, "turntables": known, "problems": {}}
        copies = [copy for about, turntable in self.turntables(row) for copy in self._copies(row, about, turntable)]
        if not copies:
            raise ValueError(next(iter(self.problems.values())))
        about = {ENCODER: self.encoder, SHAPE: json.dumps(copies[0]["shape"]), MADE_OF: row["group_id"]}
        table = pa.Table.from_pylist(copies).drop_columns("shape").replace_schema_metadata(about)
        stream = io.BytesIO()
        pq.write_table(table, stream, compression="zstd", write_page_checksum=True)
        self.store.put(path, stream.getvalue())
        return {"path": path, "turntables": len(copies) // self.config.variants, "problems": self.problems}

    def _turntables_in(self, path: str, group_id: str) -> int | None:
        """How many turntables of this row group a shard of latents holds; None where it is not there."""
        try:
            with self.store.open(path) as stream:
                file = pq.ParquetFile(stream)
                same = (file.schema_arrow.metadata or {}).get(MADE_OF, b"").decode() == group_id
                return file.metadata.num_rows // self.config.variants if same else None
        except (KeyError, pa.ArrowInvalid):
            return None

    def _copies(self, row: Row, known: Row, turntable: Turntable) -> list[Row]:
        """The copies of a turntable, none where a picture of it cannot be read."""
        from model.pocket.data import draw

        if "turntable_id" not in known:
            raise ValueError(f"{row['key']} has no column turntable_id; give what `im3d render` wrote")
        with self.recording_problems(row, known["number"]):
            samples = [
                draw(turntable, Drawing(batch=1), generator_of_copy(self.config.seed, known["turntable_id"], variant))
                for variant in range(self.config.variants)
            ]
            return [_copy(self.model, known, variant, sample) for variant, sample in enumerate(samples)]
        return []


def generator_of_copy(seed: int, turntable_id: str, variant: int) -> Any:
    """The generator that a copy of a turntable is drawn with; no other turntable changes it."""
    from model.training import generator_of

    place = int.from_bytes(hashlib.sha256(turntable_id.encode()).digest()[:6], "big")
    return generator_of(seed, place, variant)


def _copy(model: Any, row: dict[str, Any], variant: int, sample: Batch) -> dict[str, Any]:
    """A row with latents, and their shape [V,C,h,w]."""
    latents = model.encode_frames(sample.frames.to(model.device))[0].half().cpu().numpy()
    known = {name: row[name] for name in COLUMNS}
    named = {"turntable_id": f"{row['turntable_id']}/{variant}", "caption": sample.captions[0]}
    return known | named | {"latents": latents.tobytes(), "shape": list(latents.shape)}


def requeue_missing_shards(folder: OutputFolder, groups: Mapping[str, Chunk]) -> None:
    """Forget every result where a shard of latents is gone, so that all are looked for again."""
    if _named(folder.ledger, groups) <= _shards(folder.store):
        return
    for part in (ENCODINGS, "snapshots"):
        for key in list(folder.store.keys(f"{part}/")):
            folder.store.delete(key)
    folder.ledger = Ledger(folder.store, ENCODINGS, ROWS_PER_PART, folder.lease)


def drop_unlisted(ledger: Ledger, groups: Mapping[str, Chunk]) -> None:
    """Remove shards of latents whose row groups the renders do not have any more."""
    for key in _shards(ledger.store) - _named(ledger, groups):
        ledger.store.delete(key)


def _named(ledger: Ledger, groups: Mapping[str, Chunk]) -> set[str]:
    return {row["path"] for row in results(ledger, groups, "path")}


def _shards(out: Store) -> set[str]:
    return {key for key in out.keys("renders/") if key.endswith(".parquet")}
