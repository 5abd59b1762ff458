"""Say what actors of a line hold and where they may be: `Pool`, `Node`, `check_nodes`, `check_sum`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from recon.user_error import UserError

CPUS_LEFT = 1.0
"""For reading and for splitting blocks; without it a line whose actors hold every CPU never starts."""


@dataclass(kw_only=True, slots=True)
class Pool:
    """The actors of one stage."""

    actors: int = 1
    """How many at least, >= 1; each loads its models once."""
    max_actors: int | None = None
    """How many at most, while rows wait; None: the pool of a stage that grows takes its part of what the smallest pools
    leave, in proportion to its seconds a row: on a cluster, and of the GPUs of this machine."""
    cpus: float = 0.25
    """Logical CPUs that each reserves."""
    gpus: float = 0.0
    """GPUs that each reserves; a fraction lets stages share one."""
    threads: int = 1
    """Threads that its mathematics may use, >= 1."""
    batch: int | None = None
    """Rows at a time at most, >= 1; None: on a GPU as many as the stage makes together, else 1. How many of them a GPU
    holds, its actor finds out from what the first row takes."""
    in_flight: int = 2
    """Blocks that are on their way to an actor or in it, >= 1; two keep it busy."""
    labels: tuple[str, ...] = ()
    """Nodes it may use, by Ray's labels, as ray.io/accelerator-type=H100."""
    row_timeout: float = 3600.0
    """Seconds that a row may take, > 0; a batch may take as many times longer as it has rows."""
    max_rows: int | None = None
    """A process is replaced after so many rows, >= 1."""
    max_growth_gb: float | None = None
    """A process is replaced when it has grown by so many GiB since its models were loaded, on the host and on GPUs
    together, > 0; pages of Ray's object store do not count."""

    def __post_init__(self) -> None:
        if min(self.actors, self.threads, self.rows, self.in_flight) < 1 or self.cpus < 0 or self.gpus < 0:
            raise UserError(
                "a pool needs actors, threads, batch and in_flight of at least 1, cpus and gpus of at least 0"
            )
        if self.max_actors is not None and self.max_actors < self.actors:
            raise UserError(f"max_actors is {self.max_actors}; it must be at least actors = {self.actors}")
        given = [value for value in (self.row_timeout, self.max_growth_gb, self.max_rows) if value is not None]
        if min(given) <= 0:
            raise UserError("row_timeout, max_rows and max_growth_gb must be above 0")
        if bad := [label for label in self.labels if not all(label.partition("="))]:
            raise UserError(f"label {bad[0]!r} is none; write key=value, as ray.io/accelerator-type=H100")

    @property
    def rows(self) -> int:
        """Rows at a time, once it is known whether there is a GPU."""
        return 1 if self.batch is None else self.batch


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """What a node of the cluster has, used or not."""

    cpus: float
    gpus: float = 0.0
    labels: Mapping[str, str]
    id: str = ""
    """Ray's."""
    host: str = ""
    """Its address."""

    def holds(self, pool: Pool) -> bool:
        """Whether an actor of the pool may be here, once nothing else is."""
        wanted = (label.split("=", 1) for label in pool.labels)
        named = all(_selects(value, self.labels.get(key)) for key, value in wanted)
        return named and pool.cpus <= self.cpus + 1e-6 and pool.gpus <= self.gpus + 1e-6


def check_nodes(pools: Mapping[str, Pool], nodes: Iterable[Node]) -> None:
    """Raises RuntimeError, in one sentence, when no node could hold an actor of a stage: Ray would wait for ever."""
    nodes = list(nodes)
    for name, pool in pools.items():
        if not any(node.holds(pool) for node in nodes):
            labels = f" and the labels {' '.join(pool.labels)}" if pool.labels else ""
            raise UserError(
                f"none of {len(nodes)} nodes has {pool.cpus:g} CPUs, {pool.gpus:g} GPUs{labels} for an actor of stage "
                f"{name}: change line.pools.{name}, add nodes, or set line.autoscaling where they come on demand"
            )


def _selects(wanted: str, label: str | None) -> bool:
    """Whether a node's label is what a selector of Ray's wants: value, !value, in(a,b) or !in(a,b)."""
    value = wanted.removeprefix("!")
    listed = value[3:-1].split(",") if value.startswith("in(") and value.endswith(")") else [value]
    return (label in [name.strip() for name in listed]) != wanted.startswith("!")


def check_sum(pools: Mapping[str, Pool], nodes: Iterable[Node]) -> None:
    """Raises RuntimeError, in one sentence, when the smallest pools together are more than the cluster has."""
    nodes = list(nodes)
    needed = reserved(pools)
    _refuse("GPU", needed["gpus"], sum(node.gpus for node in nodes), "gpus")
    _refuse("CPU", needed["cpus"] + CPUS_LEFT, sum(node.cpus for node in nodes), "cpus")


def reserved(pools: Mapping[str, Pool]) -> dict[str, float]:
    """CPUs and GPUs of the smallest pools."""
    return {kind: sum(pool.actors * getattr(pool, kind) for pool in pools.values()) for kind in ("cpus", "gpus")}


def _refuse(kind: str, needed: float, there: float, setting: str) -> None:
    if needed > there + 1e-6:
        raise UserError(
            f"the line reserves {needed:g} {kind}s and the cluster has {there:g}: lower line.pools.<stage>.actors or "
            f"line.pools.<stage>.{setting}, add nodes, or set line.autoscaling where the cluster grows on demand"
        )
