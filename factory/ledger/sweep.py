"""Remove files that no row names, of killed workers and of void records: `sweep_files`."""

from __future__ import annotations

import time
from dataclasses import dataclass

from factory.ledger.keys import KeySet, packed
from factory.ledger.ledger import ASSETS, Ledger

FILES = "files"


@dataclass(kw_only=True, slots=True)
class Swept:
    """What a sweep found: `removed` of `files` objects, `size` bytes together."""

    files: int = 0
    removed: int = 0
    size: int = 0


def sweep_files(ledger: Ledger, grace_seconds: float, dry: bool = False) -> Swept:
    """Remove the folders `files/<asset>/` that no row names. Call it holding the lease.

    Args:
        grace_seconds: younger files stay, since a worker of a run that has just died may still commit them; >= 0.
        dry: only count.
    """
    found, limit = Swept(), time.time() - grace_seconds
    objects = list(ledger.store.objects(f"{FILES}/"))  # before the rows, so that none is committed in between
    ledger.publish()
    used = KeySet(packed(_folder(row["ply"]["path"]) for row in ledger.rows(ASSETS, ["ply.path"])))
    found.files = len(objects)
    for item, kept in zip(objects, used.holds([_folder(item.key) for item in objects])):
        if kept or item.modified > limit:
            continue
        found.removed, found.size = found.removed + 1, found.size + item.size
        if not dry:
            ledger.store.delete(item.key)
    return found


def _folder(key: str) -> str:
    """The asset's folder of a file: files/<asset>/views/00.png is of files/<asset>."""
    return "/".join(key.split("/")[:2])
