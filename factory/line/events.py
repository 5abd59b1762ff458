"""Log what happened to which prompt in `events.jsonl` of the run's folder: `EventLog`. The driver alone writes it.

An object store cannot append, so that the newest lines are kept in memory and written whole now and then.
"""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from factory.storage.credentials import scrub
from factory.storage.store import Store

KEY = "events.jsonl"
MAX_EVENTS = 10_000
FLUSH_SECONDS = 30.0
MAX_LINE = 4096


class EventLog:
    """The newest events of all runs into a folder.

    Args:
        store: the output folder, held by this run.
        run_id: stands in each event.
        writable: whether the folder is still held by this run; asked before every writing.
        limit: lines kept; older ones make room.
    """

    def __init__(
        self, store: Store, run_id: str, writable: Callable[[], bool] = lambda: True, limit: int = MAX_EVENTS
    ) -> None:
        self.store, self.run_id, self.writable = store, run_id, writable
        self._lines: deque[str] = deque(self._earlier(), maxlen=limit)
        self._dirty, self._written = False, time.monotonic()

    def add(self, event: str, **fields: Any) -> None:
        """Note an event now; texts are cleared of credentials."""
        line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "run_id": self.run_id, "event": event}
        text = scrub(json.dumps(line | fields, default=str))
        if len(text) > MAX_LINE:
            text = json.dumps(line | {"stage": fields.get("stage"), "cut": text[: MAX_LINE // 2]})
        self._lines.append(text)
        self._dirty = True

    def flush(self, force: bool = False) -> None:
        """Write the file when something is new and the last writing is a while ago, or `force`.

        A folder that cannot be written now is no reason to stop the line: the next flush tries again.
        """
        if not self._dirty or not self.writable() or (not force and time.monotonic() - self._written < FLUSH_SECONDS):
            return
        self._written = time.monotonic()
        try:
            self.store.put(KEY, ("\n".join(self._lines) + "\n").encode())
            self._dirty = False
        except OSError as error:
            logging.getLogger("factory").warning("events.jsonl could not be written: %s", scrub(str(error)))

    def _earlier(self) -> list[str]:
        try:
            return self.store.get(KEY).decode("utf-8", "replace").splitlines()
        except KeyError:
            return []
