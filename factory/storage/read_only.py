"""Open a folder that is only read, as the run of somebody else that may still be going: `open_read_only`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from factory.storage.interface import ReadableStore, StorageConfig, Stored
from factory.storage.store import open_store


class ReadOnlyStore:
    """A folder, local or s3://, without any way to write into it.

    Args:
        store: the same folder, of which only the reading half stays reachable.
    """

    def __init__(self, store: ReadableStore) -> None:
        self.root = store.root
        self._store = store

    def get(self, key: str) -> bytes:
        """One object's bytes; raises KeyError."""
        return self._store.get(key)

    def open(self, key: str) -> Any:
        """One object as a seekable pyarrow stream; raises KeyError."""
        return self._store.open(key)

    def keys(self, prefix: str) -> Iterator[str]:
        """Keys below a folder, sorted; `prefix` ends in a slash."""
        return self._store.keys(prefix)

    def objects(self, prefix: str) -> Iterator[Stored]:
        """What lies below a folder, in any order; `prefix` ends in a slash."""
        return self._store.objects(prefix)


def open_read_only(url: str, config: StorageConfig | None = None) -> ReadOnlyStore:
    """The folder at a local path or an s3://bucket/prefix address, for reading.

    Raises:
        ValueError: for any other scheme, or an address that holds credentials.
    """
    return ReadOnlyStore(open_store(url, config))
