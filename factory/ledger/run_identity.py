"""Record the settings and weights of a run, so that a resume never mixes two kinds of assets: `write`, `changes`.

`config.yaml` and `weights.json` are those of the last run, `configs/<fingerprint>.yaml` keeps every kind there was:
asset rows name theirs in `config_fingerprint`. `inputs.json` lists the tables that were run into the folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from factory.storage.interface import ReadableStore, Store
from recon.user_error import UserError

SETTINGS, WEIGHTS, INPUTS = "config.yaml", "weights.json", "inputs.json"
Weights = dict[str, str]
"""Revision by network: a hub commit or sha256."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunSettings:
    """The settings of a run, as the ledger compares and keeps them."""

    values: dict[str, Any]
    """Nested, as YAML has them."""
    defaults: dict[str, Any]
    """What a setting is where an older folder does not name it."""
    without_effect: tuple[str, ...]
    """Sections that change no result."""
    fingerprint: str
    """Over all other sections."""


def changes(store: ReadableStore, settings: RunSettings, weights: Weights | None = None) -> list[str]:
    """One line for each setting, and each network where `weights` is given, that differs from the folder's last run."""
    found = []
    if before := settings_of(store):
        before, after = dict(flat(settings.defaults)) | before, dict(flat(settings.values))
        names = [name for name in before | after if name.split(".")[0] not in settings.without_effect]
        found += [f"{n}: {before.get(n)} -> {after.get(n)}" for n in names if before.get(n) != after.get(n)]
    if weights is not None and (known := _text(store, WEIGHTS)):
        old = _parsed(store, WEIGHTS, known)
        found += [f"{n} weights: {old[n]} -> {weights[n]}" for n in weights if n in old and old[n] != weights[n]]
    return found


def check_unchanged(store: ReadableStore, settings: RunSettings, weights: Weights | None, settled: int) -> None:
    """Raise UserError with the difference when outcomes of other settings or weights lie in the folder."""
    changed = changes(store, settings, weights) if settled else []
    if changed:
        raise UserError(
            f"{store.root} holds {settled} outcomes made with other settings ({'; '.join(changed)}): set them back, "
            "--new-run to make everything anew in a folder of its own, or --accept-changes to mix"
        )


def is_new(store: ReadableStore) -> bool:
    """Nothing was ever made in the folder."""
    return _text(store, SETTINGS) is None


def write(store: Store, settings: RunSettings, weights: Weights | None) -> None:
    """Write down what the outcomes from now on are made with."""
    import yaml

    text = yaml.safe_dump(settings.values, sort_keys=False).encode()
    store.create(f"configs/{settings.fingerprint}.yaml", text)
    store.put(SETTINGS, text)
    if weights is not None:
        store.put(WEIGHTS, json.dumps(weights, indent=2).encode())


def inputs(store: ReadableStore) -> list[dict[str, Any]]:
    """The tables that were run into a folder: {"prompts", "limit", "image_root"} each."""
    return _parsed(store, INPUTS, _text(store, INPUTS) or "[]")


def add_input(store: Store, source: dict[str, Any]) -> None:
    """Note a table as `inputs` gives it, local paths from the root on."""
    known, place = inputs(store), source["prompts"]
    source = source | {"prompts": place if "://" in place else os.path.abspath(place)}
    if source not in known:
        store.put(INPUTS, json.dumps([*known, source], indent=2).encode())


def folder_of_new_run(out: str, fingerprint: str, weights: Weights) -> str:
    """Where a run with changed settings or weights goes: the same place for the same ones, so that it resumes."""
    from factory.ledger.keys import digest

    return f"{out.rstrip('/')}/runs/{digest(fingerprint, json.dumps(weights, sort_keys=True))[:12]}"


def _parsed(store: ReadableStore, key: str, text: str) -> Any:
    """The JSON of a file; UserError where it is damaged."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(f"{store.root}/{key} is damaged ({error}); restore it, or remove it: the next run writes it "
                        "again") from error  # fmt: skip


def _text(store: ReadableStore, key: str) -> str | None:
    try:
        return store.get(key).decode("utf-8", "replace")
    except KeyError:
        return None


def settings_of(store: ReadableStore) -> dict[str, Any]:
    """The settings of the last run into a folder as `fit.iterations: 1200`; empty where there are none.

    Raises:
        ValueError: when `config.yaml` is no YAML.
    """
    import yaml

    try:
        values = yaml.safe_load(store.get(SETTINGS))
    except KeyError:
        return {}
    except yaml.YAMLError as error:
        raise UserError(f"{store.root}/{SETTINGS} is no YAML: {error}") from error
    return dict(flat(values)) if isinstance(values, dict) else {}


def flat(values: dict[str, Any], where: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as pairs ("fit.iterations", 1200), below the prefix `where`."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{where}{key}.")
        else:
            yield f"{where}{key}", value
