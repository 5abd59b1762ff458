"""Write what describes a data set, anew after every call: `publish`: card, Croissant, contact sheet, facts of runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from factory.ledger.asset_models import licenses_of
from factory.outputs.dataset.card import card_text
from factory.outputs.dataset.contact_sheet import Sheet
from factory.outputs.dataset.croissant import croissant_json
from factory.outputs.dataset.index import Index, kept_of
from factory.outputs.dataset.samples import schema_of
from factory.outputs.dataset.settings import DatasetConfig
from factory.storage.interface import Store

CARD, CROISSANT, RUNS, SHARDS = "README.md", "croissant.json", "runs.json", "shards.json"
"""SHARDS keeps the digest and size of each shard, so that none is read for it again."""


def publish(
    store: Store, config: DatasetConfig, index: Index, sheet: Sheet, runs: Mapping[str, Mapping[str, Any]], clip: str,
    written: Mapping[str, tuple[str, int]],
) -> None:  # fmt: skip
    """Write the descriptions of a data set that has at least one asset.

    Args:
        runs: facts of the runs of this call, by label.
        clip: name of the model whose embeddings found near-duplicates.
        written: digest and size of the shards that this call wrote.
    """
    decisions = index.table()
    kept = kept_of(decisions)
    facts = _kept(store, RUNS, runs)
    names = sorted(set(kept["shard"].to_pylist()))
    shards = {name: _about(store, name, found) for found in [_kept(store, SHARDS, written)] for name in names}
    store.put(SHARDS, json.dumps(shards, indent=1).encode())
    store.put(CARD, card_text(decisions, facts, config, clip).encode())
    licenses = sorted({name for text in kept["models"].to_pylist() for name in licenses_of(json.loads(text).values())})
    day, title = datetime.now(UTC).strftime("%Y-%m-%d"), store.root.rstrip("/").rsplit("/", 1)[-1]
    store.put(CROISSANT, croissant_json(title, schema_of(config), shards, licenses, index.number, day))
    sheet.write()


def _kept(store: Store, key: str, new: Mapping[str, Any]) -> dict[str, Any]:
    """What a file of JSON holds, with what is new; the file is written."""
    try:
        known = json.loads(store.get(key))
    except KeyError:
        known = {}
    store.put(key, json.dumps(known | dict(new), indent=1).encode())
    return known | dict(new)


def _about(store: Store, name: str, known: Mapping[str, Any]) -> tuple[str, int]:
    """Digest and size of a shard; read where a call was stopped before it wrote them down."""
    if name in known:
        return known[name][0], known[name][1]
    data = store.get(name)
    return hashlib.sha256(data).hexdigest(), len(data)
