"""Choose how many actors each stage gets, in proportion to its seconds a row: `grown`, and `bottleneck`.

A line makes rows as fast as its slowest stage, which makes actors / seconds a row. So the stage that is slowest gets
one actor more, until none of it fits any more or it may not grow: no other division of the same actors is faster, since
each that is faster has more actors of that stage.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from factory.line.placement import CPUS_LEFT, Node, Pool


@dataclass(slots=True)
class _Room:
    """What is free on a node: CPUs, and shares of each of its GPUs, since an actor lies on one or on whole ones."""

    node: Node
    cpus: float
    gpus: list[float]

    def takes(self, pool: Pool) -> bool:
        """Reserve an actor of the pool here, if it fits."""
        if not self.node.holds(pool) or pool.cpus > self.cpus + 1e-6:
            return False
        whole, share = divmod(pool.gpus + 1e-9, 1)
        free = [number for number, left in enumerate(self.gpus) if left >= 1 - 1e-6]
        if share > 1e-6 and not whole:
            fitting = [number for number, left in enumerate(self.gpus) if left >= pool.gpus - 1e-6]
            if not fitting:
                return False
            self.gpus[min(fitting, key=self.gpus.__getitem__)] -= pool.gpus
        elif len(free) < whole:
            return False
        for number in free[: int(whole)]:
            self.gpus[number] = 0.0
        self.cpus -= pool.cpus
        return True


def grown(
    pools: Mapping[str, Pool], seconds: Mapping[str, float], nodes: Sequence[Node], growing: Collection[str]
) -> dict[str, int]:
    """How many actors each stage has on these nodes, at least as many as its pool says.

    Args:
        pools: by stage. growing: those that may have more than `Pool.actors`, up to `Pool.max_actors`.
        seconds: of a row in an actor of the stage, > 0.
    """
    rooms = [_Room(node, node.cpus, [1.0] * int(node.gpus)) for node in nodes]
    if rooms:
        max(rooms, key=lambda room: room.cpus).cpus -= CPUS_LEFT
    counts = {name: pool.actors for name, pool in pools.items()}
    for pool in sorted(pools.values(), key=lambda pool: (-pool.gpus, -pool.cpus)):
        for _ in range(pool.actors):
            any(room.takes(pool) for room in rooms)
    while (slowest := bottleneck(counts, seconds)) in growing:
        pool = pools[slowest]
        full = pool.max_actors is not None and counts[slowest] >= pool.max_actors
        if full or pool.cpus == pool.gpus == 0 or not any(room.takes(pool) for room in rooms):
            break
        counts[slowest] += 1
    return counts


def bottleneck(counts: Mapping[str, int], seconds: Mapping[str, float]) -> str:
    """The stage that makes the fewest rows a second."""
    return max(counts, key=lambda name: seconds[name] / counts[name])


def rows_an_hour(counts: Mapping[str, int], seconds: Mapping[str, float]) -> float:
    """How many rows the whole line makes at most."""
    return min(3600 * counts[name] / seconds[name] for name in counts)
