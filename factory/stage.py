"""What every stage of a line does: load once an actor, take a batch, keep failures as data.

A row that fails keeps its place: `error_stage`, `error_type` and `error_message` are set, later stages
pass it on, and the last one writes its dead letter. When a batch fails, its halves are tried alone.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from typing import Any, ClassVar

import pyarrow as pa

from factory.config import FactoryConfig, fingerprint
from factory.reporter import Reporter
from factory.schema import DEAD_LETTERS, LINE
from factory.secrets import scrub

Row = dict[str, Any]


class Stage:
    """One stage. Subclasses load models in `load` and set columns of each row in `process`.

    Args:
        config: the resolved settings (`FactoryConfig`, or the line's own).
        threads: how many threads numerical libraries may use.
        board: where progress is told (`board.Board`, a Ray actor), or None.
    """

    name: ClassVar[str]
    config: Any

    def __init__(self, config: Any, threads: int = 1, board: Any = None) -> None:
        self.config, self.reporter = config, Reporter(self.name, board)
        use_threads(threads)
        with self.reporter.loading():
            self.load()

    def __del__(self) -> None:
        """Ray lets go of its actors' objects when it takes a pool apart."""
        if hasattr(self, "reporter"):
            self.reporter.gone()

    def load(self) -> None:
        """Bring models into memory; called once an actor."""

    def process(self, rows: list[Row]) -> None:
        """Fill in the stage's columns of rows that are alive, in place; may raise for the whole batch."""
        raise NotImplementedError

    def __call__(self, table: pa.Table) -> pa.Table:
        rows = table.to_pylist()
        live = [row for row in rows if row["error_stage"] is None]
        if live:
            self._tell("start", live, 0.0)
            self._attempt(live)
            self._tell("end", live, sum(row[f"seconds_{self.name}"] or 0 for row in live))
        return pa.Table.from_pylist(rows, schema=LINE)

    def _attempt(self, rows: list[Row]) -> None:
        started = time.perf_counter()
        try:
            self.process(rows)
        except Exception as error:
            if len(rows) > 1:
                middle = len(rows) // 2
                self._attempt(rows[:middle])
                self._attempt(rows[middle:])
                return
            fail(rows[0], self.name, error)
        for row in rows:
            row[f"seconds_{self.name}"] = (time.perf_counter() - started) / len(rows)
            row["host"] = socket.gethostname()

    def _tell(self, event: str, rows: list[Row], seconds: float) -> None:
        self.reporter.tell(event, rows, seconds)


def use_threads(count: int) -> None:
    """Bound the threads of this process's numerical libraries; call it before they are imported."""
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(count)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)


def fail(row: Row, stage: str, error: BaseException) -> None:
    """Turn a row into a dead letter."""
    text = scrub(str(error).encode("utf-8", "replace").decode("utf-8"))
    row.update(error_stage=stage, error_type=type(error).__name__, error_message=text[:2000])


def dead_letter(row: Row, config: FactoryConfig) -> Row:
    """The dead-letter row of a failed row."""
    return {name: row.get(name) for name in DEAD_LETTERS.names} | {"fingerprint": fingerprint(config)}
