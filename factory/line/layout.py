"""Lay a line out on a cluster, each pool as large as its stage is slow, and say so in the log: `lay_out`."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from factory.line.growth import bottleneck, grown, rows_an_hour
from factory.line.placement import Node, Pool, check_nodes, check_sum, reserved


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """How long a row takes in an actor of each stage, and how that is known."""

    seconds: Mapping[str, float]
    source: str = "expected"
    """As "measured over 40 rows"."""


def lay_out(
    pools: Mapping[str, Pool],
    nodes: Sequence[Node],
    pace: Pace,
    growing: Collection[str] = (),
    local: bool = False,
    autoscaling: bool = False,
) -> tuple[dict[str, Pool], list[str]]:
    """The pools with `max_actors` filled in, and one line of explanation for each; the last names the slowest stage.

    Args:
        pools: by stage.
        nodes: of the cluster.
        growing: stages whose pools may grow where `max_actors` is not set.
        local: Ray runs on this machine only: pools grow on its GPUs alone.
        autoscaling: what is missing will come; only what is set grows.

    Raises:
        RuntimeError: in one sentence, when the smallest pools do not fit.
    """
    if not autoscaling:
        check_sum(pools, nodes)
        check_nodes(pools, nodes)
    free = [name for name in growing if may_grow(pools[name], local, autoscaling)]
    counts = grown(pools, pace.seconds, nodes, free)
    placed, lines = {}, []
    for name, pool in pools.items():
        most = max(counts[name], pool.max_actors or pool.actors)
        placed[name] = dataclasses.replace(pool, max_actors=most)
        size = f"{pool.actors} actors" if most == pool.actors else f"{pool.actors} to {most} actors"
        lines.append(
            f"{name}: {size} of {pool.cpus:g} CPU, {pool.gpus:g} GPU, {pool.threads} threads, batch {pool.rows}, "
            f"{pool.in_flight} blocks in flight" + (f", on {' '.join(pool.labels)}" if pool.labels else "")
        )
    needed, cpus, gpus = reserved(pools), sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    lines.append(
        f"the cluster has {cpus:g} CPUs and {gpus:g} GPUs; "
        f"the smallest pools reserve {needed['cpus']:g} and {needed['gpus']:g}"
    )
    return placed, [*lines, pace_line({name: pool.max_actors or 1 for name, pool in placed.items()}, pace)]


def may_grow(pool: Pool, local: bool, autoscaling: bool) -> bool:
    """Whether a growing stage's pool takes more than its smallest size here."""
    return pool.max_actors is None and not autoscaling and (pool.gpus > 0 or not local)


def pace_line(counts: Mapping[str, int], pace: Pace) -> str:
    """What each stage takes for a row, which one the line waits for, and how fast it is then."""
    each = ", ".join(f"{name} {pace.seconds[name]:.3g}" for name in counts)
    slowest, rate = bottleneck(counts, pace.seconds), rows_an_hour(counts, pace.seconds)
    return f"seconds a row, {pace.source}: {each}; bottleneck {slowest}, at most {rate:,.0f} rows an hour"
