"""Turntables as latents of the pocket autoencoder, made once: training reads them in the place of pictures.

    renders/part-*.parquet ── V augmented copies ── encoder ──▶ OUT/renders/part-*.parquet, a row a copy

Hue, mirror and caption are drawn once for each copy and lie in it; start view and choice of views are drawn in
training, as from pictures. The shards name the encoder; another one is refused.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from factory.shards import COLUMNS, ENCODER, SHAPE, Chunk, Index
from factory.store import StorageConfig, Store, open_store
from factory.stream import Shards, reason_of

if TYPE_CHECKING:
    from model.pocket.data import Batch

AUTOENCODER = "autoencoder/diffusion_pytorch_model.safetensors"


@dataclass(kw_only=True, slots=True)
class Encoding:
    """What is encoded, by what, to where."""

    url: str
    """The renders."""
    captions: dict[str, str]
    """By asset id."""
    weights: Path
    """Local folder of weight folders with `autoencoder`."""
    out: str
    variants: int
    """Augmented copies of every turntable, >= 1."""
    seed: int
    threads: int
    storage: StorageConfig


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


def encode(job: Encoding, chunks: list[Chunk]) -> dict[str, str]:
    """Encode the row groups of one shard; returns what could not be read, and why."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch

    from model.pocket.autoencoder import PocketAutoencoder
    from model.pocket.recipes import load_frozen

    torch.set_num_threads(job.threads)
    store, problems = open_store(job.url, job.storage), {}
    shards = Shards(store, problems.__setitem__, job.captions)
    model = load_frozen(PocketAutoencoder, job.weights / "autoencoder")
    encoder = fingerprint(open_store(str(job.weights)))
    stream, writer = io.BytesIO(), None
    for chunk in chunks:
        copies = [_copy(model, *drawn) for drawn in _drawn(job, shards, chunk)]
        if not copies:
            continue
        shape = json.dumps(copies[0]["shape"])
        table = (
            pa.Table.from_pylist(copies).drop_columns("shape").replace_schema_metadata({ENCODER: encoder, SHAPE: shape})
        )
        writer = writer or pq.ParquetWriter(stream, table.schema, compression="zstd")
        writer.write_table(table)
        shards.forget()
    if writer:
        writer.close()
        open_store(job.out, job.storage).put(chunks[0].key, stream.getvalue())
    return problems


def _drawn(job: Encoding, shards: Shards, chunk: Chunk) -> Iterator[tuple[dict[str, Any], int, Batch]]:
    """Small columns, number of the copy and what was drawn, for each copy of a row group's readable turntables."""
    import pyarrow.parquet as pq

    from model.config import Drawing
    from model.pocket.data import draw

    with shards.store.open(chunk.key) as stream:
        file = pq.ParquetFile(stream)
        if "turntable_id" not in file.schema_arrow.names:
            raise ValueError(f"{chunk.key} has no column turntable_id; give what `im3d render` wrote")
        rows = file.read_row_group(chunk.group, ["turntable_id", *COLUMNS]).to_pylist()
    for number in chunk.rows:
        turntable, row = shards.turntable(chunk, number), rows[number]
        if turntable is None:
            return
        for variant in range(job.variants):
            try:
                yield (
                    row,
                    variant,
                    draw(turntable, Drawing(batch=1), generator_of_copy(job.seed, row["turntable_id"], variant)),
                )
            except (OSError, SyntaxError, ValueError) as error:  # what a broken PNG raises
                shards.note(f"{chunk.key} row group {chunk.group} row {number}", reason_of(error))
                break


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


def encode_all(job: Encoding, index: Index, workers: int) -> dict[str, str]:
    """Encode the shards of `index` that are not there yet, in some processes; returns what cannot be read, and why."""
    from concurrent.futures import ProcessPoolExecutor
    from functools import partial
    from multiprocessing import get_context

    done, parts = set(open_store(job.out, job.storage).keys("renders/")), {}
    for chunk in index.chunks:
        if chunk.key not in done:
            parts.setdefault(chunk.key, []).append(chunk)
    problems: dict[str, str] = {}
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        each = map if workers == 1 else pool.map
        for count, found in enumerate(each(partial(encode, job), parts.values()), 1):
            problems |= found
            print(f"{count} of {len(parts)} shards", flush=True)
    return problems
