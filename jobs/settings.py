"""From a command line to a job: preset, then YAML file, then flags; and how errors reach a user."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import tyro

from factory.config.settings import PRESETS, FactoryConfig, preset
from factory.config.yaml import read_yaml
from factory.line.pools import Pools, compact, merged, parse_pools
from factory.storage.credentials import scrub
from factory.storage.interface import StorageError
from factory.storage.store import Store

Job = TypeVar("Job")


def parse(kind: type[Job], argv: Sequence[str] | None) -> Job:
    """Parse a job with fields `preset`, `config`, `out` and `settings` (a FactoryConfig whose flags have no prefix).

    Raises:
        ValueError: for a bad YAML file.
        SystemExit: for bad flags, and for --help.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", default="pocket", nargs="?")
    first.add_argument("--config", default=None, nargs="?")
    chosen, _ = first.parse_known_args(arguments)
    base = preset(chosen.preset) if chosen.preset in PRESETS else FactoryConfig()
    if chosen.config:
        base = read_yaml(chosen.config, base)
    missing: Any = tyro.MISSING
    default = kind(settings=base, out=missing)  # type: ignore[call-arg]
    return parse_over(default, arguments)


_REGISTRY = tyro.constructors.ConstructorRegistry()
"""How flags become values that tyro does not know."""


def parse_over(default: Job, arguments: Sequence[str]) -> Job:
    """Flags over a job with a field `settings` (a FactoryConfig); pools change setting by setting."""
    kind: Any = type(default)
    job: Any = tyro.cli(kind, args=arguments, default=default, prog=f"im3d {kind.__name__.lower()}", registry=_REGISTRY)
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


def settle(store: Store, settings: dict[str, Any]) -> None:
    """Write down what the folder's files depend on; ValueError, naming the differences, where they were others."""
    wanted = json.dumps(settings, indent=2).encode()
    if not store.create("settings.json", wanted):
        found: Any = json.loads(store.get("settings.json"))
        changed = [f"{k} {found.get(k)}, now {v}" for k, v in json.loads(wanted).items() if found.get(k) != v]
        if changed:
            raise ValueError(f"{store.root} was made with {'; '.join(changed)}: choose another --out")


def guarded(run: Callable[[], int]) -> int:
    """Run a job; the user's mistakes and missing machinery become one sentence and exit code 2."""
    try:
        return run()
    except BrokenPipeError:
        sys.stdout = None  # whoever read has left: nothing more to say
        return 1
    except (ValueError, RuntimeError, OSError, StorageError) as error:
        print(f"error: {scrub(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        return 1
