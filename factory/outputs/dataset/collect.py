"""Collect the assets of runs as one table, without the bytes of their files: `collected`, `facts_of`."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from factory.ledger.asset_models import RunSettings, is_model_column, license_statement, models_of
from factory.ledger.reader import ASSETS, DEAD, LedgerReader
from factory.storage.interface import ReadableStore
from recon.user_error import UserError

PATHS = ("ply.path", "ply.sha256", "mesh.path", "image.path", "turntable.path", "transforms.path")
"""What is read of columns that refer to files; they are called `ply_path` and so on."""
_COSTS = ("cost_dollars", "gpu_seconds", "cpu_seconds")
_FLAT = (pa.types.is_string, pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating)


def open_runs(roots: Iterable[str], opened: Iterable[ReadableStore]) -> dict[str, LedgerReader]:
    """The runs by label: the last part of the folder's name, with a digest of the rest where that is taken.

    Raises:
        UserError: for a run without assets.
    """
    runs: dict[str, LedgerReader] = {}
    for root, store in zip(roots, opened):
        reader, label = LedgerReader(store), root.rstrip("/").rsplit("/", 1)[-1]
        if not len(reader.done):
            raise UserError(f"{root} holds no assets; give the output of im3d generate with --runs")
        if label in runs:
            label += f"-{hashlib.sha256(store.root.encode()).hexdigest()[:6]}"
        runs[label] = reader
    return runs


def collected(runs: Mapping[str, LedgerReader]) -> pa.Table:
    """A row for each asset of all runs: their plain columns, `asset_id`, `run`, `kind`, `license` and `models`.

    An asset that several runs hold comes once, as the first has it.

    Raises:
        UserError: when columns of one name have types that do not go together.
    """
    tables = [_of_run(label, reader) for label, reader in runs.items()]
    try:
        together = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowTypeError as error:
        raise UserError(f"the runs' tables do not fit together: {error}") from error
    places = pa.table({"id": together["asset_id"], "row": pa.array(range(len(together)), pa.int64())})
    first = places.group_by("id").aggregate([("row", "min")])["row_min"]
    return together.take(first.sort())


def _of_run(label: str, reader: LedgerReader) -> pa.Table:
    parts = [_plain(part) for part in reader.tables(ASSETS, _is_wanted)]
    table = pa.concat_tables(parts, promote_options="permissive").sort_by("prompt_id")
    settings = RunSettings(reader.store)
    names = [name for name in table.column_names if is_model_column(name)]
    about = table.select([name for name in (*names, "config_fingerprint") if name in table.column_names]).to_pylist()
    models = [models_of(row, settings.of(row.get("config_fingerprint"))) for row in about]
    drawn = table["from_image"].to_pylist() if "from_image" in table.column_names else [None] * len(table)
    digests = zip(table["prompt_id"].to_pylist(), table["ply_sha256"].to_pylist())
    added = {
        "asset_id": [f"{name}-{digest[:10]}" for name, digest in digests],
        "run": [label] * len(table),
        "kind": ["picture" if given else "text" for given in drawn],
        "license": [license_statement(each) for each in models],
        "models": [json.dumps(each, sort_keys=True) for each in models],
    }
    for name, values in added.items():
        table = table.append_column(name, pa.array(values, pa.string()))
    return table


def _is_wanted(column: str) -> bool:
    return column in PATHS or "." not in column


def _plain(part: pa.Table) -> pa.Table:
    """Columns of text and numbers, and of lists of text; names without dots."""
    kept = [field for field in part.schema if any(is_kind(field.type) for is_kind in _FLAT) or _is_texts(field.type)]
    table = part.select([field.name for field in kept])
    return table.rename_columns([field.name.replace(".", "_") for field in kept])


def _is_texts(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) and pa.types.is_string(kind.value_type)


def facts_of(reader: LedgerReader) -> dict[str, Any]:
    """What a run cost and what became of its rows: assets, dead letters by stage and type, dollars, seconds."""
    sums, assets = dict.fromkeys(_COSTS, 0.0), 0
    for part in reader.tables(ASSETS, lambda name: name in (*_COSTS, "prompt_id")):
        assets += len(part)
        for name in set(_COSTS) & set(part.column_names):
            sums[name] += float(np.nansum(part[name].to_numpy().astype(float)))
    letters = reader.rows(DEAD, ["error_stage", "error_type"])
    failures = Counter(f"{row['error_stage']}: {row['error_type']}" for row in letters)
    return {"assets": assets, "failures": dict(failures.most_common()), **sums}
