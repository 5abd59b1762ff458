"""Order the turntables of a training run and read them in that order: `Order`, `Reader`.

The order depends on seed, worker and number of workers alone. Every epoch permutes the row groups of all
shards; worker r of n takes every n-th of them; the rows of a window of neighbouring groups are shuffled
together. A position in a worker's stream is the same turntable, augmented alike, however often a run is cut.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from factory.storage.interface import StorageError
from factory.storage.store import Store, open_store
from factory.training.shards.index import SHAPE, Chunk, Index, reason_of, storage_errors_first
from model.config import Drawing
from recon.user_error import UserError

if TYPE_CHECKING:
    from torch import Generator

    from model.pocket.data import Batch, Turntable

WINDOW_BYTES = 128 << 20
"""Compressed bytes of the row groups that are shuffled together."""
Note = Callable[[str, str], None]
"""Called with a shard or row that cannot be used, and why."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Window:
    """Neighbouring row groups of a worker's order; its rows take `first`, `first` + 1, ... in the stream."""

    number: int
    first: int
    chunks: tuple[Chunk, ...]

    @property
    def rows(self) -> list[tuple[Chunk, int]]:
        """Every row of it, unshuffled."""
        return [(chunk, row) for chunk in self.chunks for row in chunk.rows]


@dataclass(kw_only=True, slots=True)
class Order:
    """The endless order of one worker."""

    index: Index
    seed: int
    rank: int = 0
    workers: int = 1

    def chunks(self) -> Iterator[Chunk]:
        """This worker's row groups."""
        total = len(self.index.chunks)
        for epoch in count():
            shuffled = np.random.default_rng([self.seed, epoch]).permutation(total)
            for place, chunk in enumerate(shuffled, epoch * total):
                if place % self.workers == self.rank:
                    yield self.index.chunks[chunk]

    def windows(self, start: int = 0) -> Iterator[Window]:
        """Windows from the one that holds position `start` on."""
        first, number, held, size = 0, 0, [], 0
        epoch = max(1, len(self.index.chunks) // self.workers)
        for chunk in self.chunks():
            held.append(chunk)
            size += chunk.size
            if size >= WINDOW_BYTES or len(held) == epoch:
                window = Window(number=number, first=first, chunks=tuple(held))
                first, number, held, size = first + len(window.rows), number + 1, [], 0
                if first > start:
                    yield window

    def until(self, start: int, stop: int) -> list[Window]:
        """The windows that hold the positions from `start` to `stop`."""
        found = []
        for window in self.windows(start):
            if window.first >= stop:
                break
            found.append(window)
        return found


@dataclass(kw_only=True, slots=True)
class Reader:
    """Reads windows; what cannot be read is noted, and a readable neighbour takes its place in the stream."""

    order: Order
    drawing: Drawing
    note: Note

    def samples(self, window: Window, start: int = 0) -> Iterator[tuple[int, Batch]]:
        """Positions from `start` on with what is drawn there, batches of one."""
        from model.training import generator_of

        order, index = self.order, self.order.index
        shards = Shards(open_store(index.url, index.storage), self.note, index.captions)
        rows = window.rows
        random = np.random.default_rng([order.seed, order.rank, order.workers, window.number, 1])
        rows = [rows[i] for i in random.permutation(len(rows))]
        for offset in range(max(0, start - window.first), len(rows)):
            position = window.first + offset
            for chunk, row in self._candidates(rows, offset):
                generator = generator_of(order.seed, order.rank, order.workers, position)
                sample = self._sample(shards, chunk, row, generator)
                if sample is not None:
                    yield position, sample
                    break
            else:
                raise UserError(f"no shard of {order.index.url} can be read any more; look at quarantine/")

    def _sample(self, shards: Shards, chunk: Chunk, row: int, generator: Generator) -> Batch | None:
        """What is drawn of a row; None, and noted, where it is not what the index says."""
        from model.pocket.data import draw

        index = self.order.index
        with recording_problems(self.note, f"{chunk.key} row group {chunk.group} row {row}"):
            turntable = shards.turntable(chunk, row)
            if turntable is None:
                return None
            if turntable.count != index.views:
                raise ValueError(f"{turntable.count} views, others have {index.views}")
            sample = draw(turntable, self.drawing, generator)
            side = sample.frames.shape[-2]
            if not sample.encoded and side != index.size:
                raise ValueError(f"frames of {side} pixels, others have {index.size}")
            return sample
        return None

    def _candidates(self, rows: list[tuple[Chunk, int]], offset: int) -> Iterator[tuple[Chunk, int]]:
        """The row itself, then its neighbours in the window, then one row of every other group."""
        yield from rows[offset:]
        yield from rows[:offset]
        yield from ((chunk, chunk.rows[0]) for chunk in self.order.index.chunks)


class Shards:
    """Row groups of shards, each read once.

    `captions` by asset, as `im3d curate` left them, go before those of the shards; copies in latents keep their own.
    """

    def __init__(self, store: Store, note: Note, captions: Mapping[str, str] | None = None) -> None:
        self.store, self.note, self.captions = store, note, captions or {}
        self._tables: dict[tuple[str, int], Any] = {}

    def turntable(self, chunk: Chunk, row: int) -> Turntable | None:
        """A row of a shard; None when the shard cannot be read."""
        from model.pocket.data import Turntable

        place = (chunk.key, chunk.group)
        if place not in self._tables:
            self._tables[place] = self._read(chunk)
        table = self._tables[place]
        if table is None:
            return None
        caption, elevation = table["caption"][row].as_py() or "", table["elevation"][row].as_py()
        if "latents" in table.column_names:
            shape = json.loads(table.schema.metadata[SHAPE])
            latents = np.frombuffer(table["latents"][row].as_py(), np.float16).reshape(shape)
            return Turntable(
                frame=lambda k: latents[k], count=len(latents), caption=caption, elevation=elevation, encoded=True
            )
        frames = table["frames"][row]
        return Turntable(
            frame=lambda k: over_white(frames[k]["bytes"].as_py()), count=len(frames), elevation=elevation,
            caption=self.captions.get(table["asset_id"][row].as_py(), caption),
        )  # fmt: skip

    def _read(self, chunk: Chunk) -> Any:
        import pyarrow.parquet as pq

        with (
            recording_problems(self.note, chunk.key),
            storage_errors_first(self.store, chunk.key),
            self.store.open(chunk.key) as stream,
        ):
            file = pq.ParquetFile(stream)
            held = "latents" if "latents" in file.schema_arrow.names else "frames"
            table = file.read_row_group(chunk.group, ["asset_id", "caption", "elevation", held])
            if table.num_rows <= max(chunk.rows):
                raise ValueError(f"{table.num_rows} rows where {max(chunk.rows) + 1} were")
            return table
        return None


@contextmanager
def recording_problems(note: Note, place: str) -> Iterator[None]:
    """Note what a decoder meets in a broken or missing file or row, and go on; the storage's own failures pass."""
    try:
        yield
    except (StorageError, MemoryError):
        raise
    except Exception as error:
        note(place, reason_of(error))


def plain_batches(reader: Reader, size: int, start: int = 0) -> Iterator[Batch]:
    """Batches of `size` from position `start` on, read in this process."""
    from model.pocket.data import stack

    held: list[Batch] = []
    for window in reader.order.windows(start):
        for _, sample in reader.samples(window, start):
            held.append(sample)
            if len(held) == size:
                yield stack(held)
                held = []


def over_white(png: bytes) -> NDArray[np.uint8]:
    """A PNG with straight alpha as uint8 [H,W,4]: RGB over white, and coverage."""
    from PIL import Image

    rgba = np.asarray(Image.open(io.BytesIO(png)).convert("RGBA")).astype(np.float32)
    alpha = rgba[..., 3:] / 255
    rgb = rgba[..., :3] * alpha + 255 * (1 - alpha)
    return np.concatenate([np.rint(rgb).astype(np.uint8), rgba[..., 3:].astype(np.uint8)], -1)
