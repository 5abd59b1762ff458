"""Compact the id columns of published parts, so that a resume of a million rows reads a few objects: `Snapshots`.

A snapshot `snapshots/<folder>/<number>.npz` holds sorted keys and the names of the parts they come from. It is
a cache: parts alone are the truth, and a part that no snapshot names is read itself.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from factory.ledger.damage import DamagedFile, read_parquet
from factory.ledger.keys import Keys, KeySet, packed
from factory.storage.interface import ReadableStore, Store

PARTS_PER_SNAPSHOT = 16
_PART, _SNAPSHOT = re.compile(r"/part-\d+\.parquet$"), re.compile(r"/\d+\.npz$")
log = logging.getLogger("factory")
MAX_SNAPSHOTS = 8
READERS = 8


class SnapshotReader:
    """The snapshots of one folder of parts, read.

    Args:
        store: the output folder.
        folder: of the parts, as "assets".
        damaged: called with parts that cannot be read; their rows are in no key.
    """

    def __init__(self, store: ReadableStore, folder: str, damaged: Callable[[DamagedFile], None]) -> None:
        self.store, self.folder, self._damaged = store, folder, damaged
        self._names: list[str] = []
        self._covered: list[str] = []
        self._fresh: dict[str, Keys] = {}

    def load(self) -> tuple[KeySet, int]:
        """The keys of every part, and the number of the next part. Snapshots before parts: none vanishes between."""
        names = filter(_SNAPSHOT.search, self.store.keys(f"snapshots/{self.folder}/"))
        saved = dict(read_each(self.store, list(names), _snapshot, self._tell_damaged_snapshot))
        parts = set(part_names(self.store, self.folder))
        usable = {name: found for name, found in saved.items() if parts.issuperset(found[1])}
        self._names = sorted(saved)
        self._covered = sorted({part for _, covered in usable.values() for part in covered})
        self._fresh = dict(read_each(self.store, sorted(parts.difference(self._covered)), _part, self._damaged))
        keys = [found[0] for found in usable.values()] + list(self._fresh.values())
        return KeySet(np.concatenate(keys) if keys else None), 1 + max(map(number_of, parts), default=-1)

    def _tell_damaged_snapshot(self, error: DamagedFile) -> None:
        log.warning("%s/%s; its parts are read instead", self.store.root, error)


class Snapshots(SnapshotReader):
    """The snapshots of one folder of parts, read and kept up; arguments as those of `SnapshotReader`."""

    store: Store

    def __init__(self, store: Store, folder: str, damaged: Callable[[DamagedFile], None]) -> None:
        super().__init__(store, folder, damaged)

    def add(self, part: str, keys: Keys) -> None:
        """Note a part just published; every PARTS_PER_SNAPSHOT of them make a snapshot."""
        self._fresh[part] = keys

    def save(self, keys: KeySet) -> None:
        """Write a snapshot when enough parts are in none; MAX_SNAPSHOTS of them become one.

        Args:
            keys: of every part, as `load` gives them and `add` adds to them; unpublished ones may be among them only
                while no merge is due, so that callers save right after publishing.
        """
        if len(self._fresh) < PARTS_PER_SNAPSHOT:
            return
        merge = len(self._names) >= MAX_SNAPSHOTS
        covered = self._covered if merge else []
        bulk = keys.all() if merge else np.concatenate(list(self._fresh.values()))
        stream = io.BytesIO()
        np.savez(stream, keys=bulk, parts=np.array([*covered, *self._fresh]))
        name = f"snapshots/{self.folder}/{1 + max(map(number_of, self._names), default=-1):06d}.npz"
        self.store.put(name, stream.getvalue())
        self._covered += self._fresh
        self._fresh = {}
        for old in self._names if merge else []:
            self.store.delete(old)
        self._names = [name] if merge else [*self._names, name]

    def forget(self) -> None:
        """Remove the snapshots, before parts are rewritten; call `load` afterwards."""
        for name in self.store.keys(f"snapshots/{self.folder}/"):
            self.store.delete(name)


def part_names(store: ReadableStore, folder: str) -> Iterator[str]:
    """The published parts of a folder, in order; other files there are passed over."""
    return (name for name in store.keys(f"{folder}/") if _PART.search(name))


def stray_files(store: ReadableStore, folder: str) -> list[str]:
    """Files in a folder of parts that are none."""
    return [name for name in store.keys(f"{folder}/") if not _PART.search(name)]


def number_of(name: str) -> int:
    """The number in the name of a part or snapshot."""
    return int(name.rsplit("/", 1)[1].split(".")[0].removeprefix("part-"))


def read_each(
    store: ReadableStore, names: list[str], read: Any, damaged: Callable[[DamagedFile], None]
) -> Iterator[tuple[str, Any]]:
    """Name and `read(store, name)` of objects, several at a time.

    One that has gone meanwhile is left out, and so is one that is damaged, with which `damaged` is called.
    """

    def attempt(name: str) -> Any:
        try:
            return read(store, name)
        except KeyError:
            return None
        except DamagedFile as error:
            damaged(error)
            return None

    if not names:
        return
    with ThreadPoolExecutor(READERS, "reader") as pool:
        yield from ((name, found) for name, found in zip(names, pool.map(attempt, names)) if found is not None)


def _snapshot(store: ReadableStore, name: str) -> tuple[Keys, list[str]]:
    data = store.get(name)
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as saved:
            return saved["keys"], saved["parts"].tolist()
    except Exception as error:  # numpy meets damaged archives with whatever comes
        raise DamagedFile(name, str(error)) from error


def _part(store: ReadableStore, name: str) -> Keys:
    try:
        with store.open(name) as stream:
            file = pq.ParquetFile(stream, page_checksum_verification=True)
            return packed(file.read(columns=[file.schema_arrow.names[0]]).column(0).to_pylist())
    except KeyError:
        raise
    except Exception:  # damaged, or the connection broke: the whole file tells
        return packed(read_parquet(store, name).column(0).to_pylist())
