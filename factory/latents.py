"""Turntables as latents of the pocket autoencoder, made once: training reads them in the place of pictures.

    row group of renders ── V augmented copies ── EncodeGroup ──▶ OUT/renders/part-*.parquet, a row a copy

Hue, mirror and caption are drawn once for each copy and lie in it; start view and choice of views are drawn in
training, as from pictures. The shards name the encoder; another one is refused.
"""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from factory.row_groups import NO_PICTURE, ChunkStage
from factory.schema import ENCODED
from factory.shards import ENCODER, SHAPE
from factory.stage import Row
from factory.store import Store, open_store
from factory.training_run import fetch
from model.config import Drawing

if TYPE_CHECKING:
    from model.pocket.data import Batch, Turntable

AUTOENCODER = "autoencoder/diffusion_pytorch_model.safetensors"


@dataclass(kw_only=True, slots=True)
class Encoding:
    """How turntables are encoded."""

    weights: str
    """Folder of weight folders with `autoencoder`, local or s3://."""
    variants: int
    """Augmented copies of every turntable, >= 1."""
    seed: int


def fingerprint(weights: Store) -> str | None:
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


class EncodeGroup(ChunkStage):
    """A row group of renders to a shard of latents; `config`: see `Encoding`."""

    name, schema = "encode", ENCODED

    def load(self) -> None:
        from model.pocket.autoencoder import PocketAutoencoder
        from model.pocket.recipes import load_frozen

        with tempfile.TemporaryDirectory(prefix="im3d-encode-") as scratch:
            weights = fetch(self.config.weights, ["autoencoder"], Path(scratch), self.storage)
            self.model = load_frozen(PocketAutoencoder, weights / "autoencoder")
            self.encoder = fingerprint(open_store(str(weights)))

    def make(self, row: Row) -> Row:
        """Where the latents lie, and of how many turntables."""
        copies = [copy for known, turntable in self.turntables(row) for copy in self._copies(row, known, turntable)]
        if not copies:
            raise ValueError(next(iter(self.problems.values())))
        shape = json.dumps(copies[0]["shape"])
        table = pa.Table.from_pylist(copies).drop_columns("shape")
        stream = io.BytesIO()
        pq.write_table(table.replace_schema_metadata({ENCODER: self.encoder, SHAPE: shape}), stream, compression="zstd")
        path = f"{row['key'].removesuffix('.parquet')}-{row['group']:04d}.parquet"
        self.store.put(path, stream.getvalue())
        return {"path": path, "turntables": len(copies) // self.config.variants, "problems": self.problems}

    def _copies(self, row: Row, known: Row, turntable: Turntable) -> list[Row]:
        """The copies of a turntable, none where a picture of it cannot be read."""
        from model.pocket.data import draw

        if "turntable_id" not in known:
            raise ValueError(f"{row['key']} has no column turntable_id; give what `im3d render` wrote")
        made = []
        for variant in range(self.config.variants):
            generator = generator_of_copy(self.config.seed, known["turntable_id"], variant)
            try:
                sample = draw(turntable, Drawing(batch=1), generator)
            except NO_PICTURE as error:
                self.note(row, known, error)
                return []
            made.append(_copy(self.model, known, variant, sample))
        return made


def generator_of_copy(seed: int, turntable_id: str, variant: int) -> Any:
    """The generator that a copy of a turntable is drawn with; no other turntable changes it."""
    from model.training import generator_of

    place = int.from_bytes(hashlib.sha256(turntable_id.encode()).digest()[:6], "big")
    return generator_of(seed, place, variant)


def _copy(model: Any, row: dict[str, Any], variant: int, sample: Batch) -> dict[str, Any]:
    """A row with latents, and their shape [V,C,h,w]."""
    latents = model.encode_frames(sample.frames)[0].half().numpy()
    named = {"turntable_id": f"{row['turntable_id']}/{variant}", "caption": sample.captions[0]}
    return row | named | {"latents": latents.tobytes(), "shape": list(latents.shape)}
