"""Place the actors of a line on a cluster: the defaults of a `Pool` of actors, and `place`, which says what fits."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from factory.storage.user_error import UserError

CPUS_LEFT = 1.0
"""For reading and for splitting blocks; without it a line whose actors hold every CPU never starts."""


@dataclass(kw_only=True, slots=True)
class Pool:
    """The actors of one stage."""

    actors: int = 1
    """How many at least, >= 1; each loads its models once."""
    max_actors: int | None = None
    """How many at most, while rows wait; None: on a cluster the pool of a stage that grows takes what others leave."""
    cpus: float = 0.25
    """Logical CPUs that each reserves."""
    gpus: float = 0.0
    """GPUs that each reserves; a fraction lets stages share one."""
    threads: int = 1
    """Threads that its mathematics may use, >= 1."""
    batch: int = 1
    """Rows at a time, >= 1."""
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
        if min(self.actors, self.threads, self.batch, self.in_flight) < 1 or self.cpus < 0 or self.gpus < 0:
            raise ValueError(
                "a pool needs actors, threads, batch and in_flight of at least 1, cpus and gpus of at least 0"
            )
        if self.max_actors is not None and self.max_actors < self.actors:
            raise ValueError(f"max_actors is {self.max_actors}; it must be at least actors = {self.actors}")
        given = [value for value in (self.row_timeout, self.max_growth_gb, self.max_rows) if value is not None]
        if min(given) <= 0:
            raise ValueError("row_timeout, max_rows and max_growth_gb must be above 0")
        if bad := [label for label in self.labels if not all(label.partition("="))]:
            raise ValueError(f"label {bad[0]!r} is none; write key=value, as ray.io/accelerator-type=H100")


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


def place(
    pools: Mapping[str, Pool],
    cpus: float,
    gpus: float,
    growing: Collection[str] = (),
    local: bool = False,
    autoscaling: bool = False,
) -> tuple[dict[str, Pool], list[str]]:
    """The pools with `max_actors` filled in, and one line of explanation for each.

    Args:
        pools: by stage.
        cpus: logical CPUs of the cluster. gpus: its GPUs.
        growing: stages that take what the smallest pools leave, in equal shares.
        local: Ray runs on this machine only: every pool keeps its size.
        autoscaling: what is missing will come; only what is set grows.

    Raises:
        RuntimeError: in one sentence, when the smallest pools do not fit.
    """
    needed = {kind: sum(pool.actors * getattr(pool, kind) for pool in pools.values()) for kind in ("cpus", "gpus")}
    if not autoscaling:
        _refuse("GPU", needed["gpus"], gpus, "gpus")
        _refuse("CPU", needed["cpus"] + CPUS_LEFT, cpus, "cpus")
    free = [name for name in growing if pools[name].max_actors is None and not local and not autoscaling]
    left = [(there - taken) / max(len(free), 1) for there, taken in zip((cpus - CPUS_LEFT, gpus), needed.values())]
    placed, lines = {}, []
    for name, pool in pools.items():
        most = pool.max_actors or pool.actors
        if name in free:
            most = pool.actors + _room(pool, *left)
        placed[name] = dataclasses.replace(pool, max_actors=most)
        size = f"{pool.actors} actors" if most == pool.actors else f"{pool.actors} to {most} actors"
        lines.append(
            f"{name}: {size} of {pool.cpus:g} CPU, {pool.gpus:g} GPU, {pool.threads} threads, batch {pool.batch}, "
            f"{pool.in_flight} blocks in flight" + (f", on {' '.join(pool.labels)}" if pool.labels else "")
        )
    lines.append(
        f"the cluster has {cpus:g} CPUs and {gpus:g} GPUs; "
        f"the smallest pools reserve {needed['cpus']:g} and {needed['gpus']:g}"
    )
    return placed, lines


def _room(pool: Pool, cpus: float, gpus: float) -> int:
    """How many more actors the rest of the cluster holds."""
    rooms = [left / wanted for left, wanted in ((cpus, pool.cpus), (gpus, pool.gpus)) if wanted > 0]
    return max(0, int(min(rooms, default=0) + 1e-6))


def _refuse(kind: str, needed: float, there: float, setting: str) -> None:
    if needed > there + 1e-6:
        raise UserError(
            f"the line reserves {needed:g} {kind}s and the cluster has {there:g}: lower line.pools.<stage>.actors or "
            f"line.pools.<stage>.{setting}, add nodes, or set line.autoscaling where the cluster grows on demand"
        )
