"""Read settings from YAML, as it lies beside every output: `from_yaml`, `read_yaml`; errors name the setting."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from factory.config.settings import FactoryConfig
from factory.line.placement import Pool
from factory.line.pool_flags import Pools, merged
from factory.line.settings import LineConfig
from recon.user_error import UserError


def from_yaml(text: str, base: FactoryConfig, origin: str) -> FactoryConfig:
    """`base` with the settings of a YAML document, as `run_identity.write` makes it; `origin` names it in errors.

    Raises:
        UserError: for unknown keys (with the nearest known one), wrong types and values out of range.
    """
    import yaml

    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{origin}: not YAML: {error}") from error
    return _merged(base, values or {}, origin, "")


def read_yaml(path: str | Path, base: FactoryConfig) -> FactoryConfig:
    """`from_yaml` on a file."""
    try:
        text = Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    return from_yaml(text, base, str(path))


def _merged(base: Any, values: Any, origin: str, where: str) -> Any:
    if not isinstance(values, dict):
        raise UserError(f"{origin}: {where.rstrip('.') or 'the document'} must be a mapping, not {values!r}")
    types = typing.get_type_hints(type(base))
    changes = {}
    if isinstance(base, LineConfig):
        values = _with_pools(values, types)
    for key, value in values.items():
        if key not in types:
            near = difflib.get_close_matches(str(key), types, 1)
            hint = f"did you mean {where}{near[0]}?" if near else f"Available: {', '.join(types)}"
            raise UserError(f"{origin}: unknown setting {where}{key}; {hint}")
        current = getattr(base, key)
        if isinstance(current, Pools):
            changes[key] = merged(current, _pools(value, origin, f"{where}{key}."))
        elif dataclasses.is_dataclass(current):
            changes[key] = _merged(current, value, origin, f"{where}{key}.")
        else:
            changes[key] = _typed(value, types[key], f"{origin}: {where}{key}")
    try:
        return dataclasses.replace(base, **changes)
    except ValueError as error:
        raise UserError(f"{origin}: {error}") from error


def _with_pools(values: dict[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """The section `line` as it is now: once each stage's pool was a setting of its own, as `line.video`."""
    old = {name: value for name, value in values.items() if name not in known and isinstance(value, dict)}
    rest = {name: value for name, value in values.items() if name not in old}
    return rest | ({"pools": old | (values.get("pools") or {})} if old else {})


def _pools(values: Any, origin: str, where: str) -> Pools:
    """Mappings of settings of a `Pool` by stage, each of its type."""
    if not isinstance(values, dict):
        raise UserError(f"{origin}: {where.rstrip('.')} must be a mapping of stages to pools, not {values!r}")
    pools = Pools()
    for stage, settings in values.items():
        pool = _merged(Pool(), settings, origin, f"{where}{stage}.")
        pools[str(stage)] = {name: getattr(pool, name) for name in settings}
    return pools


def _typed(value: Any, kind: Any, where: str) -> Any:
    """The YAML value as its annotated type; YAML has lists where Python has tuples."""
    import typeguard

    value = tuple(value) if isinstance(value, list) else value
    if isinstance(value, int) and not isinstance(value, bool) and float in (kind, *typing.get_args(kind)):
        value = float(value)
    try:
        if isinstance(value, bool) and bool not in (kind, *typing.get_args(kind)):
            raise typeguard.TypeCheckError(f"{value} is no number")
        return typeguard.check_type(value, kind)
    except typeguard.TypeCheckError as error:
        raise UserError(f"{where}: {error}") from error
