"""What an output folder was made with: settings and weights, so that a resume never mixes assets of two kinds.

`config.yaml` and `weights.json` are those of the last run, `configs/<fingerprint>.yaml` keeps every kind there was:
asset rows name theirs in `config_fingerprint`. `inputs.json` lists the tables that were run into the folder.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from factory.config.settings import FactoryConfig, difference, fingerprint, flat
from factory.config.yaml import from_yaml, to_yaml
from factory.ledger.keys import digest
from factory.storage.store import Store

SETTINGS, WEIGHTS, INPUTS = "config.yaml", "weights.json", "inputs.json"
Weights = dict[str, str]
"""Revision by network: a hub commit or sha256."""


def weights_of(config: FactoryConfig) -> Weights:
    """The revisions of every network that the settings use, as this machine has them.

    Raises:
        ValueError: for a model that is none.
        RuntimeError: if weights cannot be had.
    """
    import eval
    import recon
    from model.weights import SIBLINGS, class_name, locate, revision_of

    found = {}
    for name, settings in (("image", config.image), ("video", config.video)):
        folder = locate(settings.model, name, settings.revision)
        found[name] = revision_of(folder)
        if class_name(folder).startswith("Pocket"):
            shared = settings.model == "pocket"
            found |= {f"{'' if shared else f'{name} '}{part}": revision_of(folder.parent / part) for part in SIBLINGS}
    if config.views.elevation is None and config.views.estimator != "pocket":
        found["estimator"] = revision_of(Path(config.views.estimator))
    found["recon"] = revision_of(Path(recon.__path__[0], "weights"))
    judge = Path(eval.__path__[0], "weights") if config.clip.model == "pocket" else Path(config.clip.model)
    found["judge"] = revision_of(judge) if judge.is_dir() else f"{config.clip.model} {config.clip.pretrained}"
    return found


def changes(store: Store, config: FactoryConfig, weights: Weights | None = None) -> list[str]:
    """One line for each setting, and each network where `weights` is given, that differs from the folder's last run."""
    found = []
    if before := _text(store, SETTINGS):
        found += difference(from_yaml(before, FactoryConfig(), f"{store.root}/{SETTINGS}"), config)
    if weights is not None and (known := _text(store, WEIGHTS)):
        old = json.loads(known)
        found += [f"{n} weights: {old[n]} -> {weights[n]}" for n in weights if n in old and old[n] != weights[n]]
    return found


def refuse_changes(store: Store, config: FactoryConfig, weights: Weights | None, settled: int) -> None:
    """Raise ValueError with the difference when outcomes of other settings or weights lie in the folder."""
    changed = changes(store, config, weights) if settled else []
    if changed:
        raise ValueError(
            f"{store.root} holds {settled} outcomes made with other settings ({'; '.join(changed)}): set them back, "
            "--new-run to make everything anew in a folder of its own, or --accept-changes to mix"
        )


def is_new(store: Store) -> bool:
    """Nothing was ever made in the folder."""
    return _text(store, SETTINGS) is None


def write(store: Store, config: FactoryConfig, weights: Weights | None) -> None:
    """Write down what the outcomes from now on are made with."""
    text = to_yaml(config).encode()
    store.create(f"configs/{fingerprint(config)}.yaml", text)
    store.put(SETTINGS, text)
    if weights is not None:
        store.put(WEIGHTS, json.dumps(weights, indent=2).encode())


def inputs(store: Store) -> list[dict[str, Any]]:
    """The tables that were run into a folder: {"prompts", "limit", "image_root"} each."""
    return json.loads(_text(store, INPUTS) or "[]")


def add_input(store: Store, source: dict[str, Any]) -> None:
    """Note a table as `inputs` gives it, local paths from the root on."""
    known, place = inputs(store), source["prompts"]
    source = source | {"prompts": place if "://" in place else os.path.abspath(place)}
    if source not in known:
        store.put(INPUTS, json.dumps([*known, source], indent=2).encode())


def folder_of_new_run(out: str, config: FactoryConfig, weights: Weights) -> str:
    """Where a run with changed settings or weights goes: the same place for the same ones, so that it resumes."""
    return f"{out.rstrip('/')}/runs/{digest(fingerprint(config), json.dumps(weights, sort_keys=True))[:12]}"


def _text(store: Store, key: str) -> str | None:
    try:
        return store.get(key).decode()
    except KeyError:
        return None


def settings_of(store: Store) -> dict[str, Any]:
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
        raise ValueError(f"{store.root}/{SETTINGS} is no YAML: {error}") from error
    return dict(flat(values)) if isinstance(values, dict) else {}
