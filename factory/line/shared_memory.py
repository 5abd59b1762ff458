"""Bound what travels between stages by Ray's object store, since more of it goes to disk: `bound`."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace

from factory.line.placement import Pool

DATA_SHARE = 0.5
"""Share of the object store that Ray Data fills; tasks need the rest to read and write."""
LOCAL_STORE_BYTES = 1 << 30
LOCAL_MEMORY_SHARE = 0.3
"""Of a machine's memory, at most, for the object store of a Ray of its own."""


def bytes_in_flight(pools: Mapping[str, Pool], rows_per_block: int, sizes: Mapping[str, int]) -> int:
    """Bytes of the blocks that busy actors hold: those waiting or in work, and one made by each."""
    total, taken = 0, 0
    for name, pool in pools.items():
        rows, actors = max(rows_per_block, pool.rows), pool.max_actors or pool.actors
        total += rows * actors * (taken * pool.in_flight + sizes[name])
        taken = sizes[name]
    return total


def bound(
    pools: Mapping[str, Pool], rows_per_block: int, sizes: Mapping[str, int], store: float
) -> tuple[dict[str, Pool], int, str]:
    """Pools and rows a block whose blocks on their way fit the object store, and a line that explains them.

    Args:
        pools: by stage, in order. sizes: bytes of a row that leaves each stage.
        rows_per_block: wanted; halved while the blocks are too large, then actors get one block at a time.
        store: bytes of the object store.
    """
    room = DATA_SHARE * store
    choices = [(dict(pools), rows_per_block >> halvings) for halvings in range(rows_per_block.bit_length())]
    choices.append(({name: replace(pool, in_flight=1) for name, pool in pools.items()}, 1))
    fitting = (choice for choice in choices if bytes_in_flight(*choice, sizes) <= room)
    chosen, rows = next(fitting, choices[-1])
    need = bytes_in_flight(chosen, rows, sizes)
    line = (
        f"blocks of {rows} rows, up to {need / 1e6:,.0f} MB on their way; the store has {room / 1e6:,.0f} MB for them"
    )
    if rows < rows_per_block:
        line += f" (line.rows_per_block = {rows_per_block} would not fit)"
    if need > room:
        line += ": they will be spilled to disk; start Ray with a larger --object-store-memory, or lower max_actors"
    return chosen, rows, line


def local_store_bytes(need: int) -> int:
    """Size of the object store of a Ray of this machine's own, for so many bytes on their way."""
    import psutil

    limit = min(LOCAL_MEMORY_SHARE * psutil.virtual_memory().total, 0.8 * shutil.disk_usage("/dev/shm").free)
    return int(max(LOCAL_STORE_BYTES, min(need / DATA_SHARE, limit)))
