"""Finished assets to read again: of a run, or loose PLY files. Nothing is written, so a run may still be going."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from factory.ledger.keys import ID_PATTERN
from factory.ledger.ledger import ASSETS, COMMITS
from factory.storage.store import Store, open_store

Row = dict[str, Any]

FILES = ("ply", "mesh", "image", "turntable")
FINISHED = pa.schema(
    [
        pa.field("prompt_id", pa.string(), False),
        ("prompt", pa.string()),
        ("seed", pa.int64()),
        ("elevation", pa.float64()),  # radians
        ("root", pa.string()),  # folder that the files lie in, local or s3://
        *[(name, pa.string()) for name in FILES],  # relative to root
        ("ply_sha256", pa.string()),
        ("attempt", pa.int32()),
    ]
)
_COLUMNS = ["prompt_id", "prompt", "seed", "elevation", "ply", "mesh.path", "image.path", "turntable.path"]


def assets_of_run(run: str) -> list[Row]:
    """The assets of an output folder of `im3d generate`, as rows of FINISHED, by prompt id.

    Raises:
        ValueError: when there are none.
    """
    store = open_store(run)
    found = {row["prompt_id"]: row for row in _rows(store)}
    if not found:
        raise ValueError(f"{run} holds no assets; give the output folder of im3d generate, or PLY files with --ply")
    return [_finished(found[name], store.root) for name in sorted(found)]


def _rows(store: Store) -> Iterator[Row]:
    """Commits before parts: a record that moves meanwhile is seen at least once."""
    for folder in (COMMITS, ASSETS):
        for key in store.keys(f"{folder}/"):
            try:
                file = pq.ParquetFile(io.BytesIO(store.get(key)))
            except KeyError:
                continue
            if "ply" in file.schema_arrow.names:
                yield from file.read(columns=_COLUMNS).to_pylist()


def _finished(row: Row, root: str) -> Row:
    paths = {name: (row.get(name) or {}).get("path") for name in FILES}
    known = {name: row[name] for name in ("prompt_id", "prompt", "seed", "elevation")}
    return known | paths | {"root": root, "ply_sha256": row["ply"]["sha256"], "attempt": 1}


def assets_of_files(paths: Sequence[str]) -> list[Row]:
    """Loose PLY files, local or s3://, as rows of FINISHED; each is called by its name without suffix.

    Raises:
        ValueError: when a name is no id, or two files have the same.
    """
    rows: dict[str, Row] = {}
    for path in paths:
        root, slash, name = path.rpartition("/")
        stem = PurePosixPath(name).stem
        if not ID_PATTERN.fullmatch(stem):
            raise ValueError(f"{path}: name {stem!r} is not allowed; use 1 to 128 of A-Z a-z 0-9 . _ -")
        if stem in rows:
            raise ValueError(f"{path}: another file is called {stem!r} too; rename one")
        place = root or slash or "."
        rows[stem] = dict.fromkeys(FINISHED.names) | {"prompt_id": stem, "root": place, "ply": name, "attempt": 1}
    return list(rows.values())


def table(rows: Iterable[Row]) -> pa.Table:
    """Rows of FINISHED as a table."""
    return pa.Table.from_pylist(list(rows), schema=FINISHED)


@lru_cache(maxsize=8)
def _store(root: str) -> Store:
    return open_store(root)


def read(row: Row, name: str) -> bytes:
    """The bytes of a file of an asset.

    Raises:
        ValueError: when it is missing, or the PLY is not the one that the run wrote.
    """
    try:
        data = _store(row["root"]).get(row[name])
    except KeyError as error:
        raise ValueError(f"{row[name]} is missing from {row['root']}") from error
    if name == "ply" and row["ply_sha256"] and hashlib.sha256(data).hexdigest() != row["ply_sha256"]:
        raise ValueError(f"{row[name]} has changed since the run wrote it (its SHA-256 differs); make the asset again")
    return data
