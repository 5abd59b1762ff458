"""Say which models made an asset, and under which licences: `models_of`, `license_statement`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from factory.ledger.run_identity import flat
from factory.storage.interface import ReadableStore

Models = dict[str, dict[str, str]]
"""By part of the line, as `video`: `model`, `revision` and `license`, each where it is known."""
_COLUMN = re.compile(r"(\w+)_(revision|license)")
UNKNOWN = "unknown"


def is_model_column(name: str) -> bool:
    """Whether a column of an asset table tells a model's revision or licence."""
    return _COLUMN.fullmatch(name) is not None


def models_of(row: Mapping[str, Any], settings: Mapping[str, Any]) -> Models:
    """The models of an asset.

    Args:
        row: of an asset table; a model that the asset did not need has no revision there.
        settings: those of the asset's run, as `fit.iterations`; `<part>.model` names the model.
    """
    found: Models = {}
    for column, value in row.items():
        match = _COLUMN.fullmatch(column)
        if match and value:
            found.setdefault(match[1], {})[match[2]] = str(value)
    for part, about in found.items():
        if name := settings.get(f"{part}.model"):
            found[part] = {"model": str(name), **about}
    return found


def license_statement(models: Models) -> str:
    """One statement for an asset: the licences of its models, each once, joined by AND as SPDX does.

    A model without a licence counts as `unknown`; an asset without models has the statement `unknown`.
    """
    return " AND ".join(licenses_of(models.values())) or UNKNOWN


def licenses_of(models: Iterable[Mapping[str, str]]) -> list[str]:
    """The licences of models, sorted, each once; those of merged weights stand as `a + b` in one."""
    parts = (part.strip() for about in models for part in about.get("license", UNKNOWN).split(" + "))
    return sorted(set(parts))


class RunSettings:
    """The settings of a run's assets, each kind read once.

    Args:
        store: output folder of `im3d generate`.
    """

    def __init__(self, store: ReadableStore) -> None:
        self._store = store
        self._known: dict[str, dict[str, Any]] = {}

    def of(self, config_fingerprint: str | None) -> dict[str, Any]:
        """As `fit.iterations: 1200`; empty where the folder does not keep them."""
        import yaml

        key = config_fingerprint or ""
        if key not in self._known:
            try:
                text = self._store.get(f"configs/{key}.yaml") if key else b""
            except KeyError:
                text = b""
            self._known[key] = dict(flat(yaml.safe_load(text) or {}))
        return self._known[key]
