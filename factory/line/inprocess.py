"""Run a line without Ray, in this process and one row at a time: `run_inprocess`.

For debugging: breakpoints work, and the trace of a failed row is printed where it happens. Stages, tables and ledger
are those of `factory.line.run`, so a row ends the same way. What protects against a process that dies or hangs is off:
there is no time limit, no replacement of the process, and a broken GPU ends the run.
"""

from __future__ import annotations

import logging
import math
import threading
from bdb import BdbQuit
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from factory.line.actor_log import TextFormatter
from factory.line.board import Board, Snapshot
from factory.line.stage import Stage, use_threads
from factory.line.tally import Tally

if TYPE_CHECKING:
    from factory.ledger.ledger import Ledger
    from factory.line.progress import Display
    from factory.line.settings import LineConfig
    from factory.line.step import Step
    from factory.line.work import Work


def run_inprocess(
    work: Work, chain: Sequence[Step], line: LineConfig, ledger: Ledger, display: Display | None = None
) -> Tally:
    """Do every row that the ledger does not hold yet; afterwards it holds all of them.

    Raises:
        TooManyFailures: when `line.max_failed_share` is passed; what is done stays done.
        StorageError: when the storage fails. Under Ray the block would be tried again.
    """
    board, rows = _SharedBoard([step.actor.name for step in chain]), ledger.missing(work.ids)
    tally = Tally(total=len(rows), read=board.read)
    try:
        with display.watching(tally) if display else nullcontext(), _traces_shown():
            stages = [_load(step, board) for step in chain] if len(rows) else []
            for row in rows:
                table = _pass_through(work.table([int(row)], attempt=1), stages)
                tally.count(table["status"].to_pylist(), line.max_failed_share)
                ledger.refresh()
    finally:
        ledger.publish()
    return tally


def _load(step: Step, board: Board) -> Stage:
    """A step's stage, with its models, as a guest in this process; quitting the debugger ends the run."""
    pool = replace(step.pool, row_timeout=math.inf, max_rows=None, max_growth_gb=None)
    own = {"pool": pool, "own_process": False, "passing": (step.actor.passing, BdbQuit)}
    actor = type(step.actor.__name__, (step.actor,), own)
    return actor(threads=pool.threads, board=board, **step.arguments)


def _pass_through(table: pa.Table, stages: Sequence[Stage]) -> pa.Table:
    """The outcome of rows after every stage, each with its own number of threads."""
    for stage in stages:
        use_threads(stage.pool.threads)
        table = stage(table)
    return table


class _SharedBoard(Board):
    """A board that stages write while the thread of the display reads.

    The stages share one process, so that each holds it for its own seconds only and never idles.
    """

    def __init__(self, stages: Sequence[str]) -> None:
        super().__init__(stages)
        self._lock = threading.Lock()

    def record(self, *arguments: Any, **what: Any) -> None:
        """As `Board.record`, one thread at a time."""
        with self._lock:
            super().record(*arguments, **what)

    def read(self) -> Snapshot:
        """As `Board.read`, one thread at a time."""
        with self._lock:
            return super().read()

    def _add_actor_seconds(self, known: Any, now: float) -> None:
        """As of a board, but of the seconds in which the stage loads or has rows."""
        if known.state == "idle":
            known.since = now
        super()._add_actor_seconds(known, now)


@contextmanager
def _traces_shown() -> Iterator[None]:
    """Print what stages log, with the traces of failed rows, while the block runs."""
    log, handler = logging.getLogger("factory"), logging.StreamHandler()
    handler.setFormatter(TextFormatter())
    handler.setLevel(logging.WARNING)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
