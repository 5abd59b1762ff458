"""Start a job from its command line: `start`; and what every job takes: `Job`, `LineJob`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from factory.line.cost import CostConfig
from factory.line.settings import Runner
from factory.storage.interface import StorageConfig
from factory.storage.weights import read_weights_by
from jobs.errors import guarded
from jobs.help import parse_flags

AnyJob = TypeVar("AnyJob")


@dataclass(kw_only=True, slots=True)
class Job:
    """What every job takes."""

    storage: StorageConfig = field(default_factory=StorageConfig)


@dataclass(kw_only=True, slots=True)
class LineJob(Job):
    """What every job takes that runs a line."""

    cost: CostConfig = field(default_factory=CostConfig)
    runner: Runner = "ray"
    """'inprocess' runs the stage in this process, a row at a time and without Ray, to debug it."""


def start(
    name: str,
    kind: type[AnyJob],
    run: Callable[[AnyJob], int],
    argv: Sequence[str] | None,
    parse: Callable[[list[str]], AnyJob] | None = None,
) -> int:
    """Parse the command line of a job and run it; returns the exit code.

    Args:
        name: what comes after `im3d`.
        kind: the dataclass of the job's flags.
        run: does the job, returns the exit code.
        argv: the flags; None takes those of this process.
        parse: makes the job of the flags, where that takes more than one look at them.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [word for word in arguments if word != "--debug"]

    def job() -> AnyJob:
        made = parse(arguments) if parse else parse_flags(kind, arguments, f"im3d {name}")
        storage = getattr(getattr(made, "settings", made), "storage", None)
        if isinstance(storage, StorageConfig):
            read_weights_by(storage)
        return made

    return guarded(lambda: run(job()), debug)
