"""Read finished assets again, of a run or of loose PLY files: `assets_of_run`, `assets_of_files`. Writes nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from factory.ledger.asset_models import RunSettings, is_model_column, license_statement, models_of
from factory.ledger.keys import ID_PATTERN
from factory.ledger.reader import ASSETS, LedgerReader
from factory.storage.interface import ReadableStore, StorageConfig
from factory.storage.read_only import open_read_only
from recon.user_error import UserError

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
        ("size_metres", pa.float64()),  # longest side, where the prompt's table gave it
        ("models", pa.string()),  # JSON of asset_models.Models
        ("license", pa.string()),  # one statement for the asset
        ("attempt", pa.int32()),
    ]
)
_COLUMNS = ("prompt_id", "prompt", "seed", "elevation", "size_metres", "config_fingerprint")
_NESTED = ("ply.path", "ply.sha256", "mesh.path", "image.path", "turntable.path")


def assets_of_run(store: ReadableStore) -> list[Row]:
    """The assets of an output folder of `im3d generate`, as rows of FINISHED, by prompt id.

    Raises:
        UserError: when there are none.
    """
    found = sorted(LedgerReader(store).rows(ASSETS, _is_wanted), key=lambda row: row["prompt_id"])
    if not found:
        raise UserError(f"{store.root} holds no assets; give the output of im3d generate, or PLY files with --ply")
    settings = RunSettings(store)
    return [_finished(row, store.root, settings) for row in found]


def _is_wanted(column: str) -> bool:
    return column in _COLUMNS or column in _NESTED or is_model_column(column)


def _finished(row: Row, root: str, settings: RunSettings) -> Row:
    paths = {name: (row.get(name) or {}).get("path") for name in FILES}
    known = {name: row.get(name) for name in ("prompt_id", "prompt", "seed", "elevation", "size_metres")}
    models = models_of(row, settings.of(row.get("config_fingerprint")))
    about = {"models": json.dumps(models), "license": license_statement(models)}
    return known | paths | about | {"root": root, "ply_sha256": row["ply"]["sha256"], "attempt": 1}


def assets_of_files(paths: Sequence[str]) -> list[Row]:
    """Loose PLY files, local or s3://, as rows of FINISHED; each is called by its name without suffix.

    Raises:
        UserError: when a name is no id, or two files have the same.
    """
    rows: dict[str, Row] = {}
    for path in paths:
        root, slash, name = path.rpartition("/")
        stem = PurePosixPath(name).stem
        if not ID_PATTERN.fullmatch(stem):
            raise UserError(f"{path}: name {stem!r} is not allowed; use 1 to 128 of A-Z a-z 0-9 . _ -")
        if stem in rows:
            raise UserError(f"{path}: another file is called {stem!r} too; rename one")
        place = root or slash or "."
        rows[stem] = dict.fromkeys(FINISHED.names) | {"prompt_id": stem, "root": place, "ply": name, "attempt": 1}
    return list(rows.values())


def table(rows: Iterable[Row]) -> pa.Table:
    """Rows of FINISHED as a table."""
    return pa.Table.from_pylist(list(rows), schema=FINISHED)


@lru_cache(maxsize=8)
def _store(root: str, storage: str) -> ReadableStore:
    return open_read_only(root, StorageConfig(**json.loads(storage)))


def read(row: Row, name: str, storage: StorageConfig) -> bytes:
    """The bytes of a file of an asset; `storage`: how its folder is reached.

    Raises:
        ValueError: when it is missing, or the PLY is not the one that the run wrote.
    """
    try:
        data = _store(row["root"], json.dumps(asdict(storage))).get(row[name])
    except KeyError as error:
        raise ValueError(f"{row[name]} is missing from {row['root']}") from error
    if name == "ply" and row["ply_sha256"] and hashlib.sha256(data).hexdigest() != row["ply_sha256"]:
        raise ValueError(f"{row[name]} has changed since the run wrote it (its SHA-256 differs); make the asset again")
    return data
