"""Keep actors healthy: find rows that hang or kill a process, replace one that reached its limits (`ProcessLimits`).

The board remembers which rows a process had when it died (see `Board.deaths`). When Ray starts them again, they are
tried in halves, quarters, ... down to single rows, and a row that kills alone becomes a dead letter.
"""

from __future__ import annotations

import faulthandler
import math
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from factory.line.placement import Pool

MAX_DEATHS = 3
"""Processes that a row may take along while it is alone."""
GRACE_SECONDS = 20.0
"""After the time limit, for the process to say so; then it is ended even where native code holds the interpreter."""
EXIT_HUNG, EXIT_REPLACED, EXIT_BROKEN, EXIT_DRAINED = 70, 71, 72, 73

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Deaths:
    """What a row has cost one stage so far."""

    count: int = 0
    """Processes that died with it."""
    timed_out: bool = False
    """The last one had run out of time."""
    host: str | None = None
    """Where the last one was."""

    def alone(self, batch: int) -> int:
        """How many of them it died in alone: a batch of 8 is tried as 8, 4, 2 and then 1."""
        return self.count - (batch.bit_length() - 1)

    def exhausted(self, batch: int) -> bool:
        """Whether to give the row up; one time limit missed alone is enough."""
        return self.alone(batch) >= (1 if self.timed_out else MAX_DEATHS)


def groups(rows: Sequence[Row], deaths: Sequence[Deaths], limit: int) -> Iterator[list[Row]]:
    """Rows to try together: all at once, at most `limit`, and halved for every death."""
    group: list[Row] = []
    size = 0
    for row, death in zip(rows, deaths):
        wanted = max(1, min(limit, len(rows) >> death.count))
        if group and (wanted != size or len(group) == size):
            yield group
            group = []
        size = wanted
        group.append(row)
    if group:
        yield group


def mark_exhausted(row: Row, stage: str, death: Deaths) -> None:
    """Turn an exhausted row into a dead letter."""
    if death.timed_out:
        kind, reason = "row_timeout", f"took longer than line.pools.{stage}.row_timeout"
    else:
        kind = "worker_killed"
        reason = "its process ended: killed for its memory, by a crash in native code, or by itself"
    message = f"{reason}; {death.count} process{'es' * (death.count > 1)} of stage {stage} died with it"
    row.update(error_stage=stage, error_type=kind, error_message=message, attempt=death.count, host=death.host)


def free_memory() -> None:
    """Give back what nobody needs."""
    import gc

    gc.collect()
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


@contextmanager
def time_limit(seconds: float, expired: Callable[[], None]) -> Iterator[None]:
    """End this process with the stacks of its threads in the log when the block takes longer, after `expired()`.

    Args:
        seconds: infinity for no limit.
    """
    if math.isinf(seconds):
        yield
        return

    def end() -> None:
        expired()
        faulthandler.dump_traceback(file=_log())
        os._exit(EXIT_HUNG)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    faulthandler.dump_traceback_later(seconds + GRACE_SECONDS, exit=True, file=_log())
    try:
        yield
    finally:
        timer.cancel()
        faulthandler.cancel_dump_traceback_later()


def _log() -> Any:
    """This process's own standard error, which Ray keeps as a log file."""
    return sys.__stderr__ or sys.stderr


class ProcessLimits:
    """Rows and memory of this process since its models were loaded.

    Args:
        pool: `max_rows` and `max_growth_gb` say how much it may take.
    """

    def __init__(self, pool: Pool) -> None:
        self.pool, self.rows, self.loaded = pool, 0, own_memory()

    def replace_if_exceeded(self) -> None:
        """End this process between two batches; Ray starts another and gives it the rows at hand."""
        pool = self.pool
        grown = pool.max_growth_gb is not None and own_memory() - self.loaded > pool.max_growth_gb * 2**30
        if grown or (pool.max_rows is not None and self.rows >= pool.max_rows):
            os._exit(EXIT_REPLACED)


def own_memory() -> int:
    """Bytes of this process on the host and on its GPUs.

    On the host resident ones, on Linux without the pages that it shares, as those of Ray's object store; on a GPU those
    that torch has reserved, its cache included, since no other process can have them.
    """
    import psutil

    used = psutil.Process().memory_info()
    cuda = sys.modules["torch"].cuda if "torch" in sys.modules else None
    reserved = sum(map(cuda.memory_reserved, range(cuda.device_count()))) if cuda and cuda.is_initialized() else 0
    return used.rss - getattr(used, "shared", 0) + reserved
