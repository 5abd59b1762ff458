"""Display the progress of a run, as a live table or as lines of a log: `Display`."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from factory.line.cost import CostConfig, run_dollars
from factory.line.summary import make_console
from factory.line.tally import Tally

if TYPE_CHECKING:
    from factory.line.events import EventLog
    from factory.line.placement import Pool

EVENT_SECONDS = 60.0


def headline(tally: Tally, dollars: float = 0.0) -> str:
    """Rows by state, yield, time left, cost and what is waited for, in one line."""
    eta, finished = tally.eta_seconds(), tally.done + tally.failed
    parts = [f"{tally.done} of {tally.total} done", f"{tally.failed} failed"]
    if tally.failed:
        parts.append(f"yield {tally.done / finished:.0%}")
    parts.append(f"about {_duration(eta)} left" if eta is not None and tally.left else f"{tally.left} left")
    if dollars:
        parts.append(f"${dollars:,.2f} so far")
    if tally.blocked_by():
        parts.append(f"waiting for {tally.blocked_by()} ({_duration(tally.seconds)})")
    return ", ".join(parts)


def live_table(tally: Tally, dollars: float = 0.0) -> Any:
    """The table shown during a run."""
    from rich.table import Table

    table = Table(title=headline(tally, dollars), title_justify="left")
    table.add_column("stage")
    for name in ("queued", "in work", "finished", "failed", "s a row", "rows a minute", "actors", "busy"):
        table.add_column(name, justify="right")
    minutes = max(tally.seconds, 1e-9) / 60
    queued = tally.last.queued(tally.total)
    for name, count in tally.last.stages.items():
        mean = f"{count.seconds / count.finished:.1f}" if count.finished else "-"
        ready = count.actors["idle"] + count.actors["busy"]
        actors = f"{ready}+{count.actors['loading']} loading" if count.actors["loading"] else str(ready)
        busy = f"{count.busy_share:.0%}" if count.busy_share is not None else "-"
        numbers = (queued[name], count.running, count.finished, count.failed)
        table.add_row(name, *map(str, numbers), mean, f"{count.finished / minutes:.2f}", actors, busy)
    return table


def plain_line(tally: Tally, dollars: float = 0.0) -> str:
    """One line of the same for logs: by stage the rows queued, in work and finished."""
    queued = tally.last.queued(tally.total)
    parts = [f"{name} {queued[name]}/{c.running}/{c.finished}" for name, c in tally.last.stages.items()]
    return headline(tally, dollars) + (f" | queued/in work/finished: {', '.join(parts)}" if parts else "")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


class Display:
    """Shows and notes a run: a live table on a terminal, else a line every few seconds; events and gauges.

    Args:
        events: the run's events, or None.
        prices: for the cost so far.
        pools: by stage what its actors hold; without it no cost is shown.
        log_seconds: between the lines where there is no terminal.

    Attributes:
        tally: of the run that is or was watched last; None before the first.
    """

    tally: Tally | None = None

    def __init__(
        self,
        events: EventLog | None = None,
        prices: CostConfig | None = None,
        pools: Mapping[str, Pool] | None = None,
        log_seconds: float = 10.0,
    ) -> None:
        self.console = make_console()
        self.events, self.prices, self.pools, self.log_seconds = events, prices or CostConfig(), pools, log_seconds
        self._gauges: Any = None

    def dollars(self, tally: Tally) -> float:
        """The run's cost so far."""
        return run_dollars(tally.last.stages, self.pools, self.prices) if self.pools else 0.0

    def explain(self, lines: list[str]) -> None:
        """Say how the line is laid out, once, and note it as an event."""
        for text in lines:
            self.console.print(text, markup=False, highlight=False)
        self._note("line_placed", pools=lines)

    @contextmanager
    def watching(self, tally: Tally) -> Iterator[None]:
        """Show and note `tally` until the block ends."""
        from rich.live import Live

        self.tally = tally
        stop = threading.Event()
        live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None
        self._note("run_started", rows=tally.total)

        def loop() -> None:
            logged = noted = time.monotonic()
            while not stop.wait(1.0):
                now = time.monotonic()
                self._look(tally)
                if live or now - logged >= self.log_seconds:
                    logged = now
                    self._show(tally, live)
                if now - noted >= EVENT_SECONDS:
                    noted = now
                    self._note("progress", **self._counts(tally))
                if self.events:
                    self.events.flush()

        thread = threading.Thread(target=loop, name="display", daemon=True)
        ending: dict[str, Any] = {"event": "run_finished"}
        with live or nullcontext():
            thread.start()
            try:
                yield
            except BaseException as error:
                ending = {"event": "run_stopped", "error_type": type(error).__name__, "error_message": str(error)}
                raise
            finally:
                stop.set()
                thread.join()
                self._look(tally)
                self._show(tally, live)
                self._note(**ending, **self._counts(tally))
                if self.events:
                    self.events.flush(force=True)

    def _look(self, tally: Tally) -> None:
        """Read the board; one that is just dying tells nothing new."""
        try:
            snapshot = tally.look()
        except ConnectionError:
            return
        for note in snapshot.notes:
            self._note(**note)
        snapshot.notes = []
        if tally.gauged:
            self._set_gauges(tally)

    def _show(self, tally: Tally, live: Any) -> None:
        if live:
            live.update(live_table(tally, self.dollars(tally)), refresh=True)
        else:
            print(plain_line(tally, self.dollars(tally)), flush=True)

    def _set_gauges(self, tally: Tally) -> None:
        from factory.line.metrics import Metrics

        self._gauges = self._gauges or Metrics()
        self._gauges.set_run_gauges(tally, self.dollars(tally))

    def _note(self, event: str, **fields: Any) -> None:
        if self.events:
            self.events.add(event, **fields)

    def _counts(self, tally: Tally) -> dict[str, Any]:
        counts = {"done": tally.done, "failed": tally.failed, "left": tally.left}
        return counts | {"seconds": round(tally.seconds, 1), "dollars": round(self.dollars(tally), 4)}
