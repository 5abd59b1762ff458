"""What is going on: a tiny actor that counts, a live table for a person, and the table at the end of a run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from factory.schema import STAGES

MAX_STARTED = 10_000
LOG_WIDTH = 120


@dataclass(kw_only=True, slots=True)
class StageCount:
    """Rows through one stage in this run."""

    running: int = 0
    finished: int = 0
    failed: int = 0
    seconds: float = 0.0


class Board:
    """Counts rows by stage. Runs as a Ray actor without a reserved CPU; workers tell it and never wait for it."""

    def __init__(self, stages: Iterable[str] = STAGES) -> None:
        self.stages = {name: StageCount() for name in stages}
        self.started: dict[str, tuple[str, str]] = {}

    def record(self, stage: str, event: str, prompt_ids: list[str], failed: int, seconds: float) -> None:
        """Note that rows entered ("start") or left ("end") a stage."""
        count = self.stages[stage]
        if event == "start":
            self.started.update(dict.fromkeys(prompt_ids, (stage, "running")))
            while len(self.started) > MAX_STARTED:
                del self.started[next(iter(self.started))]
        else:
            count.finished += len(prompt_ids)
            count.failed += failed
            count.seconds += seconds
            self.started.update(dict.fromkeys(prompt_ids, (stage, "left")))
        count.running = 0

    def read(self) -> dict[str, StageCount]:
        """The counts by stage, with the rows that are in each stage now."""
        for name, count in self.stages.items():
            count.running = sum(place == (name, "running") for place in self.started.values())
        return self.stages

    def last_stage(self, prompt_id: str) -> str | None:
        """The stage that a prompt was in when last heard of."""
        return self.started.get(prompt_id, (None, ""))[0]


@dataclass(kw_only=True)
class Tally:
    """The driver's count of a run."""

    total: int
    done: int = 0
    failed: int = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> int:
        """Prompts without an outcome yet."""
        return self.total - self.done - self.failed

    def eta_seconds(self) -> float | None:
        """Seconds to the end at the rate so far; None before the first outcome."""
        finished = self.done + self.failed
        return (time.monotonic() - self.started) / finished * self.left if finished else None


def live_table(tally: Tally, stages: dict[str, StageCount]) -> Any:
    """The table shown during a run."""
    from rich.table import Table

    eta = tally.eta_seconds()
    left = f"about {_duration(eta)} left" if eta is not None and tally.left else f"{tally.left} left"
    table = Table(
        title=f"{tally.done} of {tally.total} assets done, {tally.failed} failed, {left}", title_justify="left"
    )
    table.add_column("stage")
    for name in ("in work", "finished", "failed", "s an asset", "assets a minute"):
        table.add_column(name, justify="right")
    minutes = max(time.monotonic() - tally.started, 1e-9) / 60
    for name, count in stages.items():
        mean = f"{count.seconds / count.finished:.1f}" if count.finished else "-"
        rate = f"{count.finished / minutes:.2f}"
        table.add_row(name, str(count.running), str(count.finished), str(count.failed), mean, rate)
    return table


def plain_line(tally: Tally, stages: dict[str, StageCount]) -> str:
    """One line of the same for logs."""
    eta = tally.eta_seconds()
    parts = [f"{name} {count.finished}+{count.running}" for name, count in stages.items()]
    ending = f"about {_duration(eta)} left" if eta is not None and tally.left else f"{tally.left} left"
    return f"{tally.done} of {tally.total} done, {tally.failed} failed, {ending} | finished+in work: {', '.join(parts)}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


_EVALUATED = ("image", "video", "refine")
_TIMED = STAGES[:-1]
SUMMARY_COLUMNS = [
    "prompt_id",
    "prompt",
    *[f"seconds_{name}" for name in _TIMED],
    *[f"{kind}_{part}" for kind in ("steps", "forwards") for part in _EVALUATED],
]
MAX_SUMMARY_ROWS = 20


def summary_table(rows: list[dict[str, Any]]) -> Any:
    """Seconds per stage and network evaluations of each asset, at most 20 of them, with the mean of all below.

    Args:
        rows: SUMMARY_COLUMNS of the assets table, at least one row.
    """
    from rich.table import Table

    table = Table(title="Seconds per stage and network evaluations per asset", title_justify="left")
    table.add_column("asset", overflow="ellipsis", no_wrap=True, max_width=36)
    for name in (*_TIMED, "total", "steps", "forwards"):
        table.add_column(name, justify="right")
    measured = [_measured(row) for row in rows]
    for row, values in list(zip(rows, measured))[:MAX_SUMMARY_ROWS]:
        table.add_row(_plain(row["prompt"] or row["prompt_id"]), *_cells(values))
    if len(rows) > MAX_SUMMARY_ROWS:
        table.add_row(f"and {len(rows) - MAX_SUMMARY_ROWS} more")
    table.add_section()
    table.add_row("mean", *_cells([sum(column) / len(rows) for column in zip(*measured)]))
    return table


def _measured(row: dict[str, Any]) -> list[float]:
    """Seconds by stage, their sum, sampler steps, forwards."""
    seconds = [row[f"seconds_{name}"] or 0.0 for name in _TIMED]
    evaluations = [float(sum(row[f"{kind}_{part}"] or 0 for part in _EVALUATED)) for kind in ("steps", "forwards")]
    return [*seconds, sum(seconds), *evaluations]


def _cells(values: list[float]) -> list[str]:
    return [f"{value:.1f}" for value in values[:-2]] + [f"{value:.0f}" for value in values[-2:]]


def dead_table(rows: list[dict[str, Any]]) -> Any:
    """The dead letters, at most 20 of them, by stage and reason."""
    from rich.table import Table

    table = Table(title=f"{len(rows)} dead letters", title_justify="left")
    for name in ("prompt_id", "stage", "error", "message"):
        table.add_column(name, overflow="fold")
    for row in rows[:MAX_SUMMARY_ROWS]:
        cells = (row["prompt_id"], row["error_stage"], row["error_type"], row["error_message"][:200])
        table.add_row(*[_plain(cell or "unknown") for cell in cells])
    return table


def _plain(text: str) -> Any:
    """Text that can neither style the terminal nor send it control codes."""
    from rich.text import Text

    return Text("".join(c if c.isprintable() else " " for c in text))


def make_console() -> Any:
    """A console as wide as the terminal, or wide enough for the tables where there is none."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=max(console.width, LOG_WIDTH))


class Display:
    """Shows a run: a live table on a terminal, else a line every few seconds."""

    def __init__(self, log_seconds: float = 15.0) -> None:
        self.console = make_console()
        self.log_seconds = log_seconds

    @contextmanager
    def watching(self, tally: Tally, read: Callable[[], dict[str, StageCount]]) -> Iterator[None]:
        """Show `tally` and the stage counts that `read` returns until the block ends."""
        from rich.live import Live

        stop = threading.Event()
        live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None

        def show() -> None:
            if live:
                live.update(live_table(tally, read()), refresh=True)
            else:
                print(plain_line(tally, read()), flush=True)

        def loop() -> None:
            while not stop.wait(1.0 if live else self.log_seconds):
                show()

        thread = threading.Thread(target=loop, name="display", daemon=True)
        with live or nullcontext():
            thread.start()
            try:
                yield
            finally:
                stop.set()
                thread.join()
                show()
