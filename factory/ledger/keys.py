"""Keep a set of ledger keys for millions of rows in sorted arrays of 16 bytes a key: `KeySet`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

ID_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""What an id may be, so that it is a file name too."""
MAX_RECENT = 1 << 16
Keys = NDArray[np.uint64]
"""[N,2]: upper and lower half of each 128-bit key."""


def digest(*parts: str) -> str:
    """128-bit hexadecimal hash of texts, which are kept apart by their lengths."""
    hasher = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        hasher.update(len(data).to_bytes(8, "little") + data)
    return hasher.hexdigest()


def key_of(work_id: str) -> str:
    """The ledger's key of a row: 128 bits in hexadecimal, safe as a file name whatever the id holds."""
    return digest(work_id)


class KeyedIds(Protocol):
    """Ids whose keys are known already, so that millions of them need not be hashed, nor be in memory."""

    keys: Keys

    def __len__(self) -> int: ...

    def __getitem__(self, place: int, /) -> str: ...


WorkIds = Sequence[str] | KeyedIds


def packed(work_ids: Iterable[str] | KeyedIds) -> Keys:
    """The keys of many ids, in order, [N,2]."""
    if not isinstance(keys := getattr(work_ids, "keys", None), np.ndarray):
        blake2b, ids = hashlib.blake2b, (work_id.encode("utf-8", "surrogatepass") for work_id in cast(Any, work_ids))
        hashes = [blake2b(len(data).to_bytes(8, "little") + data, digest_size=16).digest() for data in ids]
        keys = np.frombuffer(b"".join(hashes), ">u8").astype(np.uint64).reshape(-1, 2)
    return keys


class KeySet:
    """Keys, the bulk of them sorted by their upper half; the newest wait in a hash table.

    A hit of the upper 64 bits is verified with the lower 64, so that two ids are only taken for one when
    they would share a commit record too.
    """

    def __init__(self, keys: Keys | None = None) -> None:
        self._sorted = _in_order(keys if keys is not None else np.empty((0, 2), np.uint64))
        self._recent: set[tuple[int, int]] = set()

    def __len__(self) -> int:
        return len(self._sorted) + len(self._recent)

    def __contains__(self, work_id: str) -> bool:
        return bool(self.holds([work_id])[0])

    def holds(self, work_ids: WorkIds) -> NDArray[np.bool_]:
        """For each id whether its key is here, [N]."""
        return self.find(packed(work_ids))

    def find(self, keys: Keys) -> NDArray[np.bool_]:
        """For each key [N,2] whether it is here, [N]."""
        found = self._find_sorted(keys)
        if self._recent:
            found |= np.fromiter((tuple(key) in self._recent for key in keys.tolist()), np.bool_, len(keys))
        return found

    def add(self, keys: Keys) -> None:
        """Put keys in; those that are here already change nothing."""
        new = keys[~self._find_sorted(keys)]
        self._recent.update(map(tuple, new.tolist()))
        if len(self._recent) > MAX_RECENT:
            self._sorted, self._recent = _in_order(self.all()), set()

    def remove(self, keys: Keys) -> None:
        """Take keys out; those that are not here change nothing."""
        self._sorted, self._recent = _in_order(self.all()), set()
        self._sorted = self._sorted[~KeySet(keys).find(self._sorted)]

    def all(self) -> Keys:
        """Every key, in no particular order."""
        recent = np.array(sorted(self._recent), np.uint64).reshape(-1, 2)
        return np.concatenate([self._sorted, recent])

    def _find_sorted(self, keys: Keys) -> NDArray[np.bool_]:
        upper, lower = self._sorted[:, 0], self._sorted[:, 1]
        place = np.searchsorted(upper, keys[:, 0])
        found = np.zeros(len(keys), np.bool_)
        open_ = np.arange(len(keys))
        while len(open_ := open_[place[open_] < len(upper)]):
            at = place[open_]
            same = upper[at] == keys[open_, 0]
            found[open_] = same & (lower[at] == keys[open_, 1])
            open_ = open_[same & ~found[open_]]
            place[open_] += 1
        return found


def _in_order(keys: Keys) -> Keys:
    """Sorted, each key once, columns contiguous for the search."""
    keys = keys[np.lexsort((keys[:, 1], keys[:, 0]))]
    fresh = np.ones(len(keys), np.bool_)
    fresh[1:] = (keys[1:] != keys[:-1]).any(axis=1)
    return np.asfortranarray(keys[fresh])
