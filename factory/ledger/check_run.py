"""Compare the tables of a run with its files: `check_run`."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from factory.ledger.commit_protocol import COMMITS, RECORD, is_dead
from factory.ledger.damage import DamagedFile, read_parquet
from factory.ledger.reader import ASSETS, DEAD
from factory.ledger.snapshots import part_names, stray_files
from factory.ledger.sweep import FILES
from factory.storage.interface import ReadableStore

READERS = 8


@dataclass(kw_only=True, slots=True)
class Checked:
    """What a check of a run found."""

    rows: int = 0
    """Assets."""
    files: int = 0
    """Files that rows name, and whose digests hold."""
    damaged: list[DamagedFile] = field(default_factory=list)
    """Parts and commit records that cannot be read."""
    broken: dict[str, list[str]] = field(default_factory=dict)
    """By prompt id what is wrong with the files of its row."""
    repeated: list[str] = field(default_factory=list)
    """Prompt ids that have more than one row."""
    strays: list[str] = field(default_factory=list)
    """Files in the folders of tables that are none."""
    orphans: int = 0
    """Files in folders of assets that no row names."""
    orphan_bytes: int = 0

    @property
    def whole(self) -> bool:
        """Nothing is missing or damaged; orphans and strays do no harm."""
        return not (self.damaged or self.broken or self.repeated)


def check_run(store: ReadableStore) -> Checked:
    """Read every part, commit record and file of an output folder of `im3d generate`; nothing is written.

    A run may go on meanwhile; what it adds is not looked at.
    """
    found, ids = Checked(strays=stray_files(store, ASSETS) + stray_files(store, DEAD)), Counter[str]()
    objects = {item.key: item.size for item in store.objects(f"{FILES}/")}
    named = set[str]()
    with ThreadPoolExecutor(READERS, "check") as pool:
        for rows in _tables(store, found):
            found.rows += len(rows)
            ids.update(row["prompt_id"] for row in rows)
            for row, problems in zip(rows, pool.map(lambda row: _problems(store, row, objects), rows), strict=True):
                entries = list(_entries(row))
                named |= {_folder(entry["path"]) for entry in entries}
                found.files += len(entries) - len(problems)
                if problems:
                    found.broken[row["prompt_id"]] = problems
    found.repeated = sorted(name for name, count in ids.items() if count > 1)
    orphans = [size for key, size in objects.items() if _folder(key) not in named]
    found.orphans, found.orphan_bytes = len(orphans), sum(orphans)
    return found


def _tables(store: ReadableStore, found: Checked) -> Iterator[list[dict[str, Any]]]:
    """The rows of assets, a part or record at a time; damaged ones of any kind are noted."""
    records = [name for name in store.keys(f"{COMMITS}/") if RECORD.search(name)]
    for name in [*records, *part_names(store, ASSETS), *part_names(store, DEAD)]:
        try:
            table = read_parquet(store, name)
        except KeyError:  # published meanwhile
            continue
        except DamagedFile as error:
            found.damaged.append(error)
            continue
        if not is_dead(table):
            yield table.to_pylist()


def _entries(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What a row says of its files: path with digest and size, or with its bytes."""
    for value in row.values():
        if isinstance(value, dict) and value.get("path"):
            yield value


def _problems(store: ReadableStore, row: dict[str, Any], objects: dict[str, int]) -> list[str]:
    found = []
    for entry in _entries(row):
        path = entry["path"]
        if path not in objects:
            found.append(f"{path} is missing")
            continue
        data = store.get(path)
        if entry.get("size") is not None and len(data) != entry["size"]:
            found.append(f"{path} has {len(data)} bytes of {entry['size']}")
        elif entry.get("sha256") and hashlib.sha256(data).hexdigest() != entry["sha256"]:
            found.append(f"{path} has changed: its SHA-256 differs")
        elif entry.get("bytes") and data != entry["bytes"]:
            found.append(f"{path} has changed: the table holds other bytes")
    return found


def _folder(key: str) -> str:
    """The asset's folder of a file: files/<asset>/views/00.png is of files/<asset>."""
    return "/".join(key.split("/")[:2])
