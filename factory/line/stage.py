"""Load once an actor, take a batch, keep failures as data: `Stage`, what every stage of a line does.

Example:
    class Brightness(Stage):
        name, reads, writes = "brightness", (IMAGE,), (pa.field("brightness", pa.float64()),)

        def process(self, rows):
            for row in rows:
                row["brightness"] = float(unpack(row["image"]).mean() / 255)

A row that fails keeps its place: `error_stage`, `error_type`, `error_message` and `error_trace` are set, later stages
pass it on, and the last one writes its dead letter. A batch that was too large for the memory is halved, and so is one
whose process died (see `health`); when a batch fails otherwise, its rows are tried one by one, once each.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any, ClassVar

import pyarrow as pa

from factory.ledger.schemas import DEAD_LETTERS, chosen
from factory.line.actor_log import Reporter
from factory.line.contract import LINE_COLUMNS, check_written, declared_rows
from factory.line.device import device_for, hide_gpus
from factory.line.failure import Failure
from factory.line.gpu_memory import GpuMemory
from factory.line.health import (
    EXIT_BROKEN,
    EXIT_DRAINED,
    ProcessLimits,
    free_memory,
    groups,
    mark_exhausted,
    time_limit,
)
from factory.line.network import Network
from factory.line.placement import Pool
from factory.line.rows import Row, with_columns
from factory.storage.interface import StorageConfig, StorageError
from factory.storage.weights import read_weights_by


class Stage:
    """One stage. Subclasses say what they read and write, load models in `load` and set columns of rows in `process`.

    All that depends on the chain follows from these declarations: the tables' columns, placement, what the object
    store must hold, progress, pages, the weights that identify a run, and what is checked before it starts.

    Args:
        config: the sections of the settings that the stage names, as attributes; or the settings of a line of its own.
        threads: how many threads numerical libraries may use.
        board: where progress is reported (`board.Board`, a Ray actor), or None.
        storage: how weights at s3:// are reached; None: as the process does already.
    """

    name: ClassVar[str]
    """In lower case: of its pool, its seconds, its dead letters."""
    sections: ClassVar[tuple[str, ...]] = ()
    """The sections of the settings that its actors get."""
    reads: ClassVar[tuple[pa.Field, ...]] = ()
    """Columns that a stage before it must write. Rows hold those of the table of prompts, and what is named here, in
    `uses` or in `writes`; columns of type large_binary as memory views."""
    uses: ClassVar[tuple[pa.Field, ...]] = ()
    """Columns that it takes where they are."""
    writes: ClassVar[tuple[pa.Field, ...]] = ()
    """Columns that it sets of every row, to None where there is no value; units stand in the metadata. Those of type
    large_binary travel to the end of the line, all others become columns of the published table."""
    calls: ClassVar[str | None] = None
    """It writes the network evaluations of a row as `steps_<calls>` (sampler steps) and `forwards_<calls>` too."""
    grows: ClassVar[bool] = False
    """Its pool takes its part of a cluster, and of this machine's GPUs, where `max_actors` is not set."""
    pool: ClassVar[Pool] = Pool()
    """The default; an actor has that of its line."""
    gpu_batch: ClassVar[int] = 1
    """Rows that it makes together on a GPU, where its pool's `batch` is not set and the GPU's memory holds them."""
    together: ClassVar[int] = sys.maxsize
    """Rows of a batch that are tried together at most."""
    passing: ClassVar[type[Exception]] = StorageError
    """Not the row's fault: its block is tried again."""
    own_process: ClassVar[bool] = True
    """Whether nothing else runs in its process, so that the stage may end it; not with `--runner inprocess`."""
    config: Any

    @classmethod
    def columns(cls) -> tuple[pa.Field, ...]:
        """Every column that the stage appends to its rows."""
        counts = [pa.field(f"{kind}_{cls.calls}", pa.int32()) for kind in ("steps", "forwards") if cls.calls]
        return (*cls.writes, *counts, pa.field(f"seconds_{cls.name}", pa.float64()))

    @classmethod
    def added_bytes(cls, config: Any) -> int:
        """About how many bytes it adds to a row, by the resolved settings; what is under a kilobyte does not count."""
        return 0

    @classmethod
    def expected_seconds(cls, config: Any) -> float:
        """About how long a row takes in one actor, by the resolved settings; what counts is how stages compare."""
        return 1.0

    @classmethod
    def networks(cls, config: Any) -> list[Network]:
        """The networks that its actors load by the resolved settings."""
        return []

    @classmethod
    def devices(cls, config: Any) -> list[str]:
        """The devices, as "auto" or "cuda", that the resolved settings want its models on."""
        return []

    def __init__(self, config: Any, threads: int = 1, board: Any = None, storage: StorageConfig | None = None) -> None:
        if storage is not None:
            read_weights_by(storage)
        self.config, self.reporter = config, Reporter(self.name, board, self.calls)
        self.sized = self.pool.gpus == 0 or self.pool.rows == 1
        self.fits = self.together if self.sized else 1
        self.given_up: list[Row] = []
        use_threads(threads)
        if self.own_process:
            hide_gpus(self.pool)
        with self.reporter.loading():
            try:
                self.load()
            except SystemExit as error:  # Ray would take it for the actor's wish to leave, and say nothing of the place
                raise RuntimeError(f"sys.exit({error.code!r}) was called while stage {self.name} loaded") from error
        self.limits = ProcessLimits(self.pool)

    def __del__(self) -> None:
        """Ray lets go of its actors' objects when it takes a pool apart."""
        if hasattr(self, "reporter"):
            self.reporter.gone()

    def load(self) -> None:
        """Bring models into memory; called once an actor."""

    def device(self, wanted: str = "auto") -> str:
        """Where a model of this stage runs, "cpu" or "cuda"; `wanted`: what the settings say."""
        return device_for(wanted, self.pool, self.name)

    def process(self, rows: list[Row]) -> None:
        """Fill in the stage's columns of rows that are alive, in place; may raise for the whole batch."""
        raise NotImplementedError

    def drop(self, row: Row, reason: str) -> None:
        """Let a row go no further: it becomes a dead letter of this stage, of type "dropped", with the reason."""
        row.update(error_stage=self.name, error_type="dropped", error_message=reason)

    def __call__(self, table: pa.Table) -> pa.Table:
        rows = declared_rows(table, type(self))
        before = [dict(row) for row in rows]
        for group in self.groups([row for row in rows if row["error_stage"] is None]):
            self._attempt(group)
        known = [field for field in table.schema if field.name in LINE_COLUMNS]
        return with_columns(table, rows, before, (*self.columns(), *known), self._refuse)

    def _refuse(self, row: Row, error: Exception) -> None:
        Failure.of(error).mark(row, self.name)

    def groups(self, rows: list[Row]) -> Iterator[list[Row]]:
        """Rows in groups to work on, each reported to the board and within its time; exhausted ones fail instead.

        These are in `given_up` then.
        """
        self.limits.replace_if_exceeded()
        deaths = self.reporter.deaths(rows)
        for row, death in zip(rows, deaths):
            if death.exhausted(min(len(rows), self.together)):
                mark_exhausted(row, self.name, death)
        self.given_up = [row for row in rows if row["error_stage"] is not None]
        self._report("end", self.given_up, 0.0)
        for group in groups(rows, deaths, self.fits):
            live = [row for row in group if row["error_stage"] is None]
            if live:
                self.reporter.exit_if_draining()
                started = time.perf_counter()
                self._report("start", live, 0.0)
                with time_limit(self.pool.row_timeout * len(live), lambda live=live: self.reporter.timed_out(live)):
                    yield live
                self._report("end", live, time.perf_counter() - started)
        self.limits.rows += len(rows)

    def _attempt(self, rows: list[Row]) -> None:
        """Process rows; those that fail alone become dead letters."""
        waiting = [(rows, True)]
        while waiting:
            group, again = waiting.pop(0)
            started = time.perf_counter()
            failure = self._try(group) if self.sized else self._try_first(group)
            if failure and (retries := self._retries(group, failure, again)):
                waiting = retries + waiting
                continue
            if failure:
                failure.mark(group[0], self.name)
            for row in group:
                row[f"seconds_{self.name}"] = (time.perf_counter() - started) / len(group)
                row["host"] = socket.gethostname()

    def _try_first(self, rows: list[Row]) -> Failure | None:
        """`_try` a single row, and find out from the memory that it took how many rows the GPU holds together."""
        free_memory()
        with GpuMemory(self.pool.gpus) as memory:
            failure = self._try(rows)
        if failure is None:
            free_memory()
            self.fits, self.sized = min(self.together, self.pool.rows, memory.rows()), True
            self.reporter.sized(self.fits, memory.taken)
        return failure

    def _try(self, rows: list[Row]) -> Failure | None:
        """Process rows together; where that fails they are as before, and nothing of the try is alive any more."""
        before = [dict(row) for row in rows]
        try:
            self.process(rows)
            check_written(rows, before)
        except self.passing:
            raise
        except (Exception, SystemExit) as error:  # an actor that leaves by SystemExit never comes back
            if hasattr(error, "ray_terminate_msg"):  # by a signal, or ray.actor.exit_actor: nothing can stop it now
                os._exit(EXIT_DRAINED)
            failure = Failure.of(error)
            if failure.broken_device and not self.own_process:
                raise
        else:
            return None
        self.reporter.try_failed(rows, failure)
        if failure.broken_device:
            os._exit(EXIT_BROKEN)
        for row, known in zip(rows, before, strict=True):
            row.clear()
            row.update(known)
        return failure

    def _retries(self, rows: list[Row], failure: Failure, again: bool) -> list[tuple[list[Row], bool]]:
        """Groups to try in place of rows that failed, and whether a row that is too large alone may have another try.

        A batch that was too large is halved, and a single row that was too large is tried once more in the memory that
        is free then. After any other error each row of a batch is tried by itself; a single row is not tried again.
        """
        if not failure.too_large:
            return [([row], True) for row in rows] if len(rows) > 1 else []
        free_memory()
        if len(rows) == 1:
            return [(rows, False)] if again else []
        middle = len(rows) // 2
        if middle < self.fits:
            self.fits = middle
            self.reporter.shrunk(middle)
        return [(rows[:middle], True), (rows[middle:], True)]

    def _report(self, event: str, rows: list[Row], seconds: float) -> None:
        self.reporter.report(event, rows, seconds)


def use_threads(count: int) -> None:
    """Bound the threads of this process's numerical libraries; call it before they are imported."""
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(count)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)
    if "numba" in sys.modules:  # its number is settled once its threads run, and it compares the variable with it
        numba = sys.modules["numba"]
        os.environ["NUMBA_NUM_THREADS"] = str(numba.config.NUMBA_NUM_THREADS)
        numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))


def dead_letter(row: Row, fingerprint: str) -> Row:
    """The dead-letter row of a failed row; `fingerprint`: of the settings that it failed with."""
    return chosen(row, DEAD_LETTERS) | {"fingerprint": fingerprint}
