"""Put a stage into a chain, with the pool and the arguments of its actors: `Step`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from factory.line.placement import Pool
from factory.line.stage import Stage


@dataclass(kw_only=True, slots=True)
class Step:
    """One stage of the line: its actor class, its pool, and what its constructor takes beside threads and board."""

    actor: type[Stage]
    pool: Pool
    arguments: dict[str, Any]
    seconds: float = 1.0
    """About how long a row takes in one actor, beside those of other stages: pools grow by it until it is measured."""
    row_bytes: int = 0
    """About how many a row has that leaves the stage, where that may fill the object store."""
