"""Count how far a run is, by outcome, with its rate and the time left: `Tally`."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from factory.line.board import Snapshot
from recon.user_error import UserError

RATE_SECONDS = 300.0
MIN_ROWS_TO_JUDGE = 20


class TooManyFailures(UserError):
    """So large a share of the rows failed that the line itself must be broken."""


@dataclass(kw_only=True)
class Tally:
    """The driver's count of a run."""

    total: int
    done: int = 0
    failed: int = 0
    """Those that were rejected included."""
    rejected: int = 0
    waiting_for: str = ""
    """What must come up before rows can move, as "Ray"; empty once it is there."""
    read: Callable[[], Snapshot] | None = None
    """Reads the board, once there is one; raises ConnectionError where it does not answer."""
    gauged: bool = False
    """Ray is there, which exports gauges."""
    last: Snapshot = field(default_factory=Snapshot)
    """The board as last read."""
    started: float = field(default_factory=time.monotonic)
    _history: deque[tuple[float, int]] = field(default_factory=deque)

    def count(self, statuses: Sequence[str], max_failed_share: float) -> None:
        """Count outcomes of rows, as `OUTCOME` names them.

        Raises:
            TooManyFailures: once more than this share of at least MIN_ROWS_TO_JUDGE rows has failed; that many assets
                are rejected shows no fault of the line.
        """
        self.done += statuses.count("done")
        self.rejected += statuses.count("rejected")
        self.failed += statuses.count("failed") + statuses.count("rejected")
        finished, broken = self.done + self.failed, self.failed - self.rejected
        if finished >= MIN_ROWS_TO_JUDGE and broken > max_failed_share * finished:
            raise TooManyFailures(
                f"{broken} of {finished} rows failed, more than line.max_failed_share = {max_failed_share}: "
                "look into dead_letters/, fix the cause, then `im3d retry`"
            )

    @property
    def left(self) -> int:
        """Prompts without an outcome yet."""
        return self.total - self.done - self.failed

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.started

    def look(self) -> Snapshot:
        """Read the board, and note how far the run is."""
        if self.read:
            self.last = self.read()
        now = time.monotonic()
        self._history.append((now, self.done + self.failed))
        while now - self._history[0][0] > RATE_SECONDS:
            self._history.popleft()
        return self.last

    def rate(self) -> float:
        """Outcomes a second over the last minutes; over the whole run where there were none in them."""
        finished = self.done + self.failed
        if self._history and finished > self._history[0][1]:
            since, before = self._history[0]
            return (finished - before) / max(time.monotonic() - since, 1e-9)
        return finished / max(self.seconds, 1e-9)

    def eta_seconds(self) -> float | None:
        """Seconds to the end at the present rate; None before the first outcome."""
        rate = self.rate()
        return self.left / rate if rate > 0 else None

    def blocked_by(self) -> str:
        """What rows wait for now: Ray, or models that no actor has loaded yet; empty when they move."""
        if self.waiting_for:
            return self.waiting_for
        counts = self.last.stages
        loading = [
            name for name, c in counts.items() if c.actors["loading"] and not c.actors["idle"] + c.actors["busy"]
        ]
        if loading or (self.read and not self.done + self.failed and not any(c.running for c in counts.values())):
            return f"the models of {', '.join(loading)}" if loading else "the actors"
        return ""
