"""Parse the flags of a job, and show in `--help` those that users set; `--help-all` shows every one: `parse_flags`."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import tyro

SHOWN: dict[str, tuple[str, ...]] = {
    "ImageConfig": ("model", "steps", "guidance_scale", "size", "device"),
    "VideoConfig": ("model", "steps", "guidance_scale", "refine_strength", "device"),
    "OrbitConfig": ("num_views",),
    "ViewsConfig": ("masks", "elevation"),
    "FitConfig": ("iterations", "init", "sh_degree", "device"),
    "LossConfig": (),
    "DensifyConfig": ("max_gaussians",),
    "LearningRates": (),
    "PoseConfig": (),
    "RefineConfig": ("rounds_at", "mix"),
    "YieldConfig": ("enabled", "retries", "threshold"),
    "MeshConfig": ("enabled", "faces", "texture"),
    "ClipConfig": ("model", "pretrained"),
    "FilesConfig": ("turntable_frames",),
    "LineConfig": ("address", "runner", "pools"),
    "Pool": ("actors", "gpus", "batch"),
    "StorageConfig": ("endpoint", "region", "anonymous"),
    "CostConfig": ("gpu_hour_price", "cpu_hour_price"),
}
"""By class of settings, what `--help` shows; of other classes everything."""


def parse_flags(
    kind: Any,
    arguments: Sequence[str],
    prog: str,
    default: Any = None,
    description: str | None = None,
    registry: Any = None,
) -> Any:
    """The job of a command line.

    Args:
        kind: dataclass of the flags, or a union of them for subcommands.
        default: what is not given; None takes the class's own.
        registry: tyro's, for types of settings that it does not know.

    Raises:
        UserError: for values that the job refuses.
        SystemExit: for unknown flags, and after help.
    """
    words = ["--help" if word == "--help-all" else word for word in arguments]
    short = "--help-all" not in arguments and bool({"-h", "--help"} & set(arguments))
    given: dict[str, Any] = {"args": words, "prog": prog, "description": description, "registry": registry}
    if default is not None:
        given["default"] = default
    if not short:
        return tyro.cli(kind, **given)
    with only_shown(kind):
        try:
            return tyro.cli(kind, **given)
        finally:
            print(f"--debug adds the traceback of a mistake. Every setting: {prog} --help-all")


@contextmanager
def only_shown(kind: Any) -> Iterator[None]:
    """Mark what SHOWN leaves out as hidden, for as long as the context lasts: in it the flags cannot be parsed."""
    before: list[tuple[dict[str, Any], str, Any]] = []
    for owner in set(settings_of(kind)):
        notes = owner.__annotations__
        for name in _hidden(owner):
            before.append((notes, name, notes[name]))
            notes[name] = Annotated[_hints(owner)[name], tyro.conf.Suppress]
    try:
        yield
    finally:
        for notes, name, note in before:
            notes[name] = note


def _hidden(owner: type) -> Iterator[str]:
    shown = SHOWN.get(owner.__name__)
    for field in dataclasses.fields(owner):
        if field.name in owner.__annotations__ and shown is not None and field.name not in shown:
            yield field.name


def settings_of(kind: Any) -> Iterator[type]:
    """The dataclasses that a type is made of."""
    if typing.get_args(kind):
        for part in typing.get_args(kind):
            yield from settings_of(part)
    elif dataclasses.is_dataclass(kind) and isinstance(kind, type):
        yield kind
        for hint in _hints(kind).values():
            yield from settings_of(hint)


def _hints(owner: type) -> dict[str, Any]:
    return typing.get_type_hints(owner, include_extras=True)
