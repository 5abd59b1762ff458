"""Measure how long stages take for a row: `measured` in the first rows of a run, `measured_before` in the last one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from factory.line.layout import Pace, may_grow
from factory.line.run_report import newest_report
from factory.line.settings import LineConfig
from factory.line.step import Step
from factory.storage.interface import ReadableStore

TRIALS_IN_A_RUN = 20
"""A run is long when it has so many times the rows that are measured: what the second start costs is little then."""
MIN_ROWS = 16
"""That a stage has finished, for its mean to count."""
LEAST_SECONDS = 1e-3
"""Of a row, where pools grow by it."""


def rows_to_measure(chain: Sequence[Step], placed: Sequence[Step], line: LineConfig, rows: int) -> int:
    """How many rows to make before pools get their final sizes; 0 where the run is short or no pool has room to grow.

    Args:
        chain: as the settings give it. placed: with the pools that expected seconds give. rows: of the run.
    """
    local = line.address == "local"
    growing = any(step.actor.grows and may_grow(step.pool, local, line.autoscaling) for step in chain)
    most = max(step.pool.max_actors or 1 for step in placed)
    wanted = max(MIN_ROWS, 2 * most)
    return wanted if growing and most > 1 and rows >= TRIALS_IN_A_RUN * wanted else 0


def measured(counts: Mapping[str, tuple[int, float]], source: str) -> Pace | None:
    """The pace by rows and seconds of each stage; None where a stage has done too few rows to tell."""
    fewest = min((rows for rows, _ in counts.values()), default=0)
    if fewest < MIN_ROWS:
        return None
    seconds = {name: max(spent / rows, LEAST_SECONDS) for name, (rows, spent) in counts.items()}
    return Pace(seconds=seconds, source=f"measured over {fewest} rows {source}")


def measured_before(store: ReadableStore, chain: Sequence[Step]) -> Pace | None:
    """The pace of the last run into a folder, where it ran these stages long enough."""
    report = newest_report(store) or {"stages": {}}
    names = [step.actor.name for step in chain]
    if not set(names) <= report["stages"].keys():
        return None
    stages = {name: report["stages"][name] for name in names}
    return measured({name: (one["finished"], one["model_seconds"]) for name, one in stages.items()}, "of the last run")
