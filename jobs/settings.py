"""Parse a job whose settings come from a preset, then a YAML file, then flags: `parse`."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Sequence
from typing import Any, TypeVar

import tyro

from factory.config.settings import PRESETS, FactoryConfig, preset
from factory.config.yaml import read_yaml
from factory.line.pool_flags import Pools, compact, merged, parse_pools
from factory.storage.interface import StorageConfig
from jobs.help import parse_flags
from recon.user_error import UserError

Job = TypeVar("Job")


def parse(kind: type[Job], arguments: Sequence[str]) -> Job:
    """Parse a job with fields `preset`, `config`, `settings` (a FactoryConfig whose flags have no prefix) and `out`.

    Raises:
        UserError: for a bad YAML file, or values that the settings refuse.
        SystemExit: for bad flags, and after help.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", default="pocket", nargs="?")
    first.add_argument("--config", default=None, nargs="?")
    chosen, _ = first.parse_known_args(arguments)
    base = preset(chosen.preset) if chosen.preset in PRESETS else FactoryConfig()
    if chosen.config:
        base = read_yaml(chosen.config, base)
    fields: Any = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    required = {} if fields["out"].default is None else {"out": tyro.MISSING}
    return parse_over(kind(settings=base, **required), arguments)  # type: ignore[call-arg]


def settings_of_run(out: str, storage: StorageConfig) -> FactoryConfig:
    """The settings that an output folder was made with; UserError where it does not say."""
    from factory.config.yaml import from_yaml
    from factory.ledger.run_identity import SETTINGS
    from factory.storage.read_only import open_read_only

    try:
        text = open_read_only(out, storage).get(SETTINGS).decode()
    except KeyError:
        raise UserError(f"{out} holds no {SETTINGS}; give an output folder of im3d generate") from None
    return from_yaml(text, FactoryConfig(), f"{out}/{SETTINGS}")


_REGISTRY = tyro.constructors.ConstructorRegistry()
"""How flags become values that tyro does not know."""


def parse_over(default: Job, arguments: Sequence[str]) -> Job:
    """Flags over a job with a field `settings` (a FactoryConfig); pools change setting by setting.

    `--runner` is short for `--line.runner`, as the jobs of one stage have it.
    """
    kind: Any = type(default)
    arguments = [re.sub(r"^--runner(?==|$)", "--line.runner", word) for word in arguments]
    job = parse_flags(kind, arguments, f"im3d {kind.__name__.lower()}", default, registry=_REGISTRY)
    job.settings.line.pools = merged(default.settings.line.pools, job.settings.line.pools)  # type: ignore[attr-defined]
    return job


@_REGISTRY.primitive_rule
def _pools(kind: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec | None:
    """`--line.pools video=2x0.5gpu reconstruct=4x1cpu`."""
    if kind.type is not Pools:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar="[STAGE=POOL [STAGE=POOL ...]]",
        instance_from_str=parse_pools,
        is_instance=lambda value: isinstance(value, Pools),
        str_from_instance=compact,
    )
