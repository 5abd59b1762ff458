"""Price assets by the seconds of actors, what the actors hold, and prices: `CostConfig`, `row_cost`, `run_dollars`.

An asset pays for the time in its stages' model code. A run pays for its actors from start to end, so
loading and idling too: that is what a cloud's bill follows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recon.user_error import UserError

if TYPE_CHECKING:
    from factory.line.board import StageCount
    from factory.line.placement import Pool


@dataclass(kw_only=True, slots=True)
class CostConfig:
    """Prices in dollars; they change no result."""

    gpu_hour_price: float = 0.0
    """Of one GPU for an hour, >= 0; an actor with `gpus: 0.2` pays a fifth."""
    cpu_hour_price: float = 0.0
    """Of one logical CPU for an hour, >= 0, by what the pools reserve."""
    storage_gb_month_price: float = 0.0
    """Of 10^9 bytes for a month, >= 0; in estimates only."""

    def __post_init__(self) -> None:
        for name in ("gpu_hour_price", "cpu_hour_price", "storage_gb_month_price"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UserError(f"cost.{name} is {getattr(self, name)}; it must be at least 0 and finite")


@dataclass(kw_only=True, slots=True)
class Usage:
    """Seconds of actors, and what they held meanwhile."""

    actor_seconds: float = 0.0
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            actor_seconds=self.actor_seconds + other.actor_seconds,
            cpu_seconds=self.cpu_seconds + other.cpu_seconds,
            gpu_seconds=self.gpu_seconds + other.gpu_seconds,
        )

    def dollars(self, prices: CostConfig) -> float:
        """Its cost."""
        return (self.gpu_seconds * prices.gpu_hour_price + self.cpu_seconds * prices.cpu_hour_price) / 3600


def usage(seconds: float, pool: Pool) -> Usage:
    """`seconds` of one actor of a pool."""
    return Usage(actor_seconds=seconds, cpu_seconds=seconds * pool.cpus, gpu_seconds=seconds * pool.gpus)


def row_cost(row: Mapping[str, Any], pools: Mapping[str, Pool], prices: CostConfig) -> dict[str, float]:
    """The cost columns of an asset, from its `seconds_<stage>` columns: what its stages held while they worked on it.

    The commit itself is left out: it ends after the row is written.
    """
    total = Usage()
    for stage, pool in pools.items():
        total += usage(row.get(f"seconds_{stage}") or 0.0, pool)
    return {
        "actor_seconds": total.actor_seconds,
        "cpu_seconds": total.cpu_seconds,
        "gpu_seconds": total.gpu_seconds,
        "cost_dollars": total.dollars(prices),
    }


def stage_usage(stages: Mapping[str, StageCount], pools: Mapping[str, Pool]) -> dict[str, Usage]:
    """What the actors of each stage have held so far, loading and idling included."""
    return {name: usage(sum(count.actor_seconds.values()), pools[name]) for name, count in stages.items()}


def run_dollars(stages: Mapping[str, StageCount], pools: Mapping[str, Pool], prices: CostConfig) -> float:
    """The run's cost so far."""
    return sum(spent.dollars(prices) for spent in stage_usage(stages, pools).values())
