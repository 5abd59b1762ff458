"""Run a line on Ray Data: `run_line` drives rows through a chain until each has exactly one record in the ledger."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.data import ActorPoolStrategy, Dataset
from ray.exceptions import RayError

from factory.ledger.ledger import Ledger
from factory.line.board import Board, Snapshot
from factory.line.health import MAX_DEATHS
from factory.line.layout import Pace, lay_out
from factory.line.metrics import Metrics
from factory.line.nodes import is_gone, living_nodes, releasing_stranded_actors, require_calls
from factory.line.pace import measured, measured_before, rows_to_measure
from factory.line.placement import Pool
from factory.line.progress import Display
from factory.line.ray_session import configure_data, start_ray
from factory.line.settings import LineConfig
from factory.line.shared_memory import LOCAL_STORE_BYTES, bound, bytes_in_flight, local_store_bytes
from factory.line.step import Step
from factory.line.tally import Tally
from factory.line.work import Work, source

ROWS_AT_ONCE = 1 << 18
"""Rows that are put into Ray's object store together; models are loaded anew after so many."""
REFRESH_SECONDS = 1.0
"""Between looks at the commit records: each look lists them."""


def build(source: Dataset, chain: Sequence[Step], line: LineConfig, board: Any, row_by_row: bool = False) -> Dataset:
    """The chain over a dataset. `row_by_row`: one row at a time, so that a killer takes no neighbour along."""
    dataset = source.repartition(target_num_rows_per_block=1 if row_by_row else line.rows_per_block)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*ray_remote_args")
        for step in chain:
            arguments = {"threads": step.pool.threads, "board": board} | step.arguments
            actor = type(step.actor.__name__, (step.actor,), {"pool": step.pool})
            dataset = dataset.map_batches(
                actor, fn_constructor_kwargs=arguments, **ray_arguments(step.pool, row_by_row)
            )
    return dataset


def ray_arguments(pool: Pool, row_by_row: bool) -> dict[str, Any]:
    """Every knob of Ray's that a stage turns, in one place.

    Ray's defaults retry a row that kills its process for ever, and `max_restarts=0` hangs the job. The
    last two go through `**ray_remote_args`, which Ray 2.64 takes away. Retries are as many as it takes to find a
    killer in a batch by halves (see `health`), and two for processes that were replaced meanwhile.
    """
    return {
        "compute": ActorPoolStrategy(
            min_size=pool.actors,
            max_size=pool.max_actors or pool.actors,
            max_tasks_in_flight_per_actor=1 if row_by_row else pool.in_flight,
        ),
        "batch_size": 1 if row_by_row else pool.rows,
        "batch_format": "pyarrow",
        "num_cpus": pool.cpus,
        "num_gpus": pool.gpus or None,
        "label_selector": dict(label.split("=", 1) for label in pool.labels) or None,
        "max_restarts": -1,
        "max_task_retries": pool.rows.bit_length() + MAX_DEATHS + 2,
    }


def run_line(
    work: Work,
    chain: Sequence[Step],
    line: LineConfig,
    ledger: Ledger,
    display: Display | None = None,
) -> Tally:
    """Do every row that the ledger does not hold yet; afterwards it holds all of them.

    Where the run is long and pools may grow, its first rows are made with pools by expected seconds, and the rest by
    measured ones; a folder's next run takes those of its last. A first pass runs whole blocks, a second one row by row
    what the first lost to dying workers; what is missing even then becomes a dead letter `worker_killed`.

    Raises:
        TooManyFailures: when `line.max_failed_share` is passed; what is done stays done.
    """
    tally, board = Tally(total=len(_missing(work, ledger)), waiting_for="Ray"), None
    try:
        with display.watching(tally) if display else nullcontext():
            start_ray(line.address, wanted_store_bytes(chain, line))
            configure_data()
            require_calls()
            before = measured_before(ledger.store, chain)
            placed, blocks = place_steps(chain, line, display, before)
            board = start_board(chain)
            tally.read, tally.gauged, tally.waiting_for = partial(_read, board), True, ""
            rows = _missing(work, ledger)
            if before is None and (trial := rows_to_measure(chain, placed, line, len(rows))):
                _make(work, rows[:trial], placed, blocks, board, tally, ledger)
                counts = {name: (count.finished, count.seconds) for name, count in _read(board).stages.items()}
                placed, blocks = place_steps(chain, line, display, measured(counts, "of this run"))
            for attempt in (1, 2):
                rows = _missing(work, ledger)
                _make(work, rows, placed, blocks, board, tally, ledger, attempt)
            _dead_letter_killed(work, ledger, tally, board)
    finally:
        ledger.publish()
        if board:
            ray.kill(board)
    return tally


def _make(
    work: Work, rows: NDArray[np.int64], chain: Sequence[Step], line: LineConfig, board: Any, tally: Tally,
    ledger: Ledger, attempt: int = 1,
) -> None:  # fmt: skip
    """One pass over rows: whole blocks, in the second attempt row by row."""
    for start in range(0, len(rows), ROWS_AT_ONCE):
        board.renew.remote()
        some = rows[start : start + ROWS_AT_ONCE].tolist()
        dataset = build(source(work, some, attempt), chain, line, board, row_by_row=attempt == 2)
        with releasing_stranded_actors(board):
            _drain(dataset, tally, ledger, line.max_failed_share)


def wanted_store_bytes(chain: Sequence[Step], line: LineConfig) -> int:
    """Bytes of the object store that the chain wants on this machine."""
    pools, sizes = _by_stage(chain)
    return local_store_bytes(bytes_in_flight(pools, line.rows_per_block, sizes))


def _by_stage(chain: Sequence[Step]) -> tuple[dict[str, Pool], dict[str, int]]:
    """Pools, and bytes of a row that leaves each stage."""
    return {step.actor.name: step.pool for step in chain}, {step.actor.name: step.row_bytes for step in chain}


def place_steps(
    chain: Sequence[Step], line: LineConfig, display: Display | None, pace: Pace | None = None
) -> tuple[list[Step], LineConfig]:
    """Chain and line with pools and blocks that fit the cluster; raises RuntimeError where none do.

    Args:
        pace: how long rows take, where that has been measured.
    """
    there = ray.cluster_resources()
    pools, sizes = _by_stage(chain)
    placed, lines = lay_out(
        pools,
        living_nodes(),
        pace or Pace(seconds={step.actor.name: step.seconds for step in chain}),
        growing=[step.actor.name for step in chain if step.actor.grows],
        local=line.address == "local",
        autoscaling=line.autoscaling,
    )
    rows = line.rows_per_block
    if any(sizes.values()):
        placed, rows, explained = bound(placed, rows, sizes, there.get("object_store_memory", LOCAL_STORE_BYTES))
        lines.append(explained)
    if display:
        display.explain(lines)
    return [replace(step, pool=placed[step.actor.name]) for step in chain], replace(line, rows_per_block=rows)


def start_board(chain: Sequence[Step]) -> Any:
    """The actor that stages report to."""
    return ray.remote(num_cpus=0, max_restarts=-1)(Board).remote([step.actor.name for step in chain], Metrics, is_gone)


def _read(board: Any) -> Snapshot:
    try:
        return ray.get(board.read.remote())
    except RayError as error:
        raise ConnectionError("the actor that counts the stages does not answer") from error


def _missing(work: Work, ledger: Ledger) -> NDArray[np.int64]:
    return ledger.missing(work.ids)


def _dead_letter_killed(work: Work, ledger: Ledger, tally: Tally, board: Any) -> None:
    """Dead letters for what has no outcome after both passes."""
    for row in _missing(work, ledger):
        stage, host = ray.get(board.last_place.remote(work.ids[row]))
        message = f"its process died in every attempt, last in stage {stage}: out of memory, or a crash in native code"
        error = {"error_stage": stage or "unknown", "error_type": "worker_killed", "error_message": message}
        error |= {"host": host}
        letter, schema = work.killed(row, error | {"attempt": 2})
        ledger.add_dead_letters([letter], schema)
        tally.failed += 1


def _drain(dataset: Dataset, tally: Tally, ledger: Ledger, max_failed_share: float) -> None:
    """Run one pass to its end, counting outcomes as they come in."""
    looked = 0.0
    tables: Iterable[Any] = dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    for table in tables:
        tally.count(table["status"].to_pylist(), max_failed_share)
        if time.monotonic() - looked > REFRESH_SECONDS:
            ledger.refresh()
            looked = time.monotonic()
    ledger.refresh()
