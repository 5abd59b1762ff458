"""Which turntables a worker meets, in which order, and what is left out."""

from __future__ import annotations

from itertools import islice

import pytest

from factory.prompts.assets import split_of
from factory.training.shards.draw_order import WINDOW_BYTES, Order, Reader, plain_batches
from factory.training.shards.index import Chunk, Index, read_index
from model.config import Drawing


def index(groups: int, rows: int = 4, size: int = WINDOW_BYTES // 3 + 1) -> Index:
    chunks = [Chunk(key=f"part-{g}", group=0, rows=tuple(range(rows)), size=size) for g in range(groups)]
    return Index(url="", chunks=chunks, captions={}, size=32, views=16)


def test_every_worker_together_see_every_row_once_an_epoch() -> None:
    whole = index(12)
    for workers in (1, 3, 4):
        seen = []
        for rank in range(workers):
            chunks = Order(index=whole, seed=5, rank=rank, workers=workers).chunks()
            seen += [chunk.key for chunk in islice(chunks, 12 // workers)]
        assert sorted(seen) == sorted(chunk.key for chunk in whole.chunks)


def test_epochs_seeds_and_more_workers_than_shards() -> None:
    order = Order(index=index(8), seed=1)
    keys = [chunk.key for chunk in islice(order.chunks(), 16)]
    assert keys[:8] != keys[8:]
    assert keys[:8] != [c.key for c in islice(Order(index=index(8), seed=2).chunks(), 8)]
    lone = [next(Order(index=index(1), seed=1, rank=rank, workers=5).chunks()).key for rank in range(5)]
    assert lone == ["part-0"] * 5


def test_windows_go_on_at_any_position() -> None:
    order = Order(index=index(7), seed=3)
    windows = list(islice(order.windows(), 6))
    assert [window.first for window in windows] == [0, 12, 24, 36, 48, 60]
    assert {len(window.chunks) for window in windows} == {3}
    for position in (0, 11, 12, 40):
        assert next(order.windows(position)) == windows[position // 12]
    assert order.until(13, 36) == windows[1:3]


def test_a_position_is_the_same_turntable_however_it_is_reached(tiny_shards) -> None:
    order = Order(index=read_index(str(tiny_shards), "train"), seed=0)
    reader = Reader(order=order, drawing=Drawing(batch=2), note=print)
    straight = list(islice(plain_batches(reader, 1), 20))
    later = list(islice(plain_batches(reader, 1, 13), 7))
    for expected, found in zip(straight[13:], later, strict=True):
        assert found.captions == expected.captions
        assert found.frames.equal(expected.frames)
    elevations = sorted(float(batch.elevations) for batch in straight[:8])
    assert elevations == pytest.approx([0.2] * 4 + [0.5] * 4)


def test_splits_are_the_tables_or_by_hash() -> None:
    names = [split_of(f"asset-{n}") for n in range(2000)]
    assert 100 < names.count("val") < 220
    assert names == [split_of(f"asset-{n}") for n in range(2000)]
    assert split_of("asset-0", "val") == "val"
