"""Report what an actor does, to the board and as JSON lines in its own log: `Reporter`.

Ray keeps what a worker prints in its session's logs (`ray logs`, the dashboard, or a log shipper).
IM3D_LOG_LEVEL=DEBUG adds the start of every row, WARNING leaves failures only.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from factory.line.failure import Failure
from factory.line.health import EXIT_DRAINED, Deaths
from factory.storage.credentials import scrub

BOARD_SECONDS = 5.0


class Reporter:
    """Reports on behalf of one actor.

    Args:
        stage: its stage's name.
        board: `board.Board` as a Ray actor, a `Board` in this process, or None.
        calls: the part whose columns `steps_` and `forwards_` hold its network evaluations, or None.
    """

    def __init__(self, stage: str, board: Any, calls: str | None = None) -> None:
        self.calls = calls
        self.stage, self.board, self.host = stage, board, socket.gethostname()
        self.remote = hasattr(getattr(board, "record", None), "remote")
        self.actor, self.node = _places() if self.remote else (stage, "")
        self.log = json_logger() if self.remote else logging.getLogger("factory")

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Around the loading of models."""
        started = time.perf_counter()
        self._send("loading", node=self.node)
        yield
        seconds = time.perf_counter() - started
        note = {"event": "stage_ready", "stage": self.stage, "seconds": round(seconds, 3), "host": self.host}
        self._send("ready", seconds=seconds, notes=[note])
        self.log.info("ready", extra={"fields": note})

    def report(self, event: str, rows: Sequence[dict[str, Any]], seconds: float) -> None:
        """Report that rows of work start or end. A start is waited for, so that it is known where a row was when its
        process died. The first column is the row's id."""
        if self.board is None or not rows:
            return
        ids = [next(iter(row.values())) for row in rows]
        if event == "start":
            self._answer_of(self._send("start", prompt_ids=ids, host=self.host, node=self.node), None)
            for identity in ids:
                self.log.debug("start", extra={"fields": {"stage": self.stage, "prompt_id": identity}})
            return
        failures = [_failure(identity, row) for identity, row in zip(ids, rows) if row["error_stage"] == self.stage]
        failed = sum(row["error_stage"] is not None for row in rows)
        self._send(
            "end",
            prompt_ids=ids,
            failed=failed,
            seconds=seconds,
            evaluations=self._evaluations(rows),
            notes=[{"event": "row_failed"} | failure for failure in failures],
        )
        self._log_ends(ids, rows, seconds)

    def deaths(self, rows: Sequence[dict[str, Any]]) -> list[Deaths]:
        """How often a process of this stage has died with each row; nothing is known without a board."""
        unknown = [Deaths()] * len(rows)
        if self.board is None or not rows:
            return unknown
        ids = [next(iter(row.values())) for row in rows]
        ask = self.board.deaths.remote if self.remote else self.board.deaths
        return self._answer_of(ask(self.stage, ids), unknown)

    def timed_out(self, rows: Sequence[dict[str, Any]]) -> None:
        """Report that rows have run out of time, just before the process ends."""
        ids = [next(iter(row.values())) for row in rows]
        self._answer_of(self._send("timeout", prompt_ids=ids), None)

    def note(self, event: str, **fields: Any) -> dict[str, Any]:
        """Report an event, and return it."""
        note = {"event": event, "stage": self.stage, "host": self.host} | fields
        self._send("note", notes=[note])
        return note

    def try_failed(self, rows: Sequence[dict[str, Any]], failure: Failure) -> None:
        """Write the trace of a failed try of rows into the log, whatever becomes of them in other tries."""
        known = {"stage": self.stage, "prompt_ids": [next(iter(row.values())) for row in rows]}
        known |= {"error_type": failure.kind, "exception": failure.trace}
        self.log.error("try_failed", extra={"fields": known})

    def shrunk(self, batch: int) -> None:
        """Report that memory was too short for a batch, and how many rows are tried from now on."""
        self.log.warning("batch_shrunk", extra={"fields": self.note("batch_shrunk", rows=batch)})

    def sized(self, batch: int, taken: int) -> None:
        """Report how many rows are tried together, since the first one took so many bytes of the GPU's memory."""
        known = {"rows": batch, "gb_a_row": round(taken / 2**30, 2)}
        self.log.info("batch_sized", extra={"fields": self.note("batch_sized", **known)})

    def exit_if_draining(self) -> None:
        """End this process where its node is about to go: Ray starts another elsewhere, with the rows at hand."""
        if not self.node:
            return
        from factory.line.nodes import is_leaving

        if is_leaving(self.node):
            note = {"event": "node_left", "stage": self.stage, "host": self.host}
            self._answer_of(self._send("gone", notes=[note]), None)
            os._exit(EXIT_DRAINED)

    def gone(self) -> None:
        """The actor ends."""
        self._send("gone")

    def _answer_of(self, answer: Any, otherwise: Any) -> Any:
        """The board's answer, or `otherwise` where none comes: the board is no reason to stop."""
        if answer is None or not self.remote:
            return otherwise if answer is None else answer
        import ray
        from ray.exceptions import RayError

        try:
            return ray.get(answer, timeout=BOARD_SECONDS)
        except RayError:
            return otherwise

    def _send(self, event: str, **what: Any) -> Any:
        if self.board is not None:
            record = self.board.record.remote if self.remote else self.board.record
            return record(self.stage, event, actor=self.actor, **what)

    def _evaluations(self, rows: Sequence[dict[str, Any]]) -> tuple[int, int]:
        if self.calls is None:
            return 0, 0
        steps, forwards = (sum(row.get(f"{kind}_{self.calls}") or 0 for row in rows) for kind in ("steps", "forwards"))
        return steps, forwards

    def _log_ends(self, ids: Sequence[str], rows: Sequence[dict[str, Any]], seconds: float) -> None:
        each, ended = round(seconds / len(rows), 3), []
        for identity, row in zip(ids, rows):
            if row["error_stage"] == self.stage:
                self.log.warning("failed", extra={"fields": _failure(identity, row)})
            elif row["error_stage"] is None:
                ended.append({"stage": self.stage, "prompt_id": identity, "seconds": each})
        if ended:
            self.log.info("end", extra={"lines": ended})


def _failure(identity: str, row: dict[str, Any]) -> dict[str, Any]:
    names = {"stage": "error_stage", "error_type": "error_type", "error_message": "error_message"}
    known = {name: row[column] for name, column in names.items()}
    return {"prompt_id": identity} | known | {"attempt": row.get("attempt")}


def _places() -> tuple[str, str]:
    """The ids of this actor and of its node."""
    import ray

    context = ray.get_runtime_context()
    return context.get_actor_id() or f"{socket.gethostname()}:{os.getpid()}", context.get_node_id()


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, message as `event`, and the record's `fields`.

    A record with `lines` instead, a list of such fields, becomes as many lines.
    """

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {"time": moment, "level": record.levelname.lower(), "event": record.getMessage()}
        line["host"] = socket.gethostname()
        lines = getattr(record, "lines", None) or [getattr(record, "fields", {})]
        return scrub("\n".join(json.dumps(line | fields, default=str) for fields in lines))


class TextFormatter(logging.Formatter):
    """For a person at a terminal: the message, the record's `fields` and, as it stands, the trace among them."""

    def format(self, record: logging.LogRecord) -> str:
        fields = dict(getattr(record, "fields", {}))
        trace = fields.pop("exception", "")
        answer = ", ".join(f"{name} {value}" for name, value in fields.items() if value is not None)
        return scrub(f"{record.getMessage()}: {answer}\n{trace}".rstrip())


def json_logger() -> logging.Logger:
    """The logger of this process, set up once."""
    logger = logging.getLogger("factory")
    if not any(isinstance(handler.formatter, JsonFormatter) for handler in logger.handlers):
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonFormatter())
        logger.addHandler(handler)
        logger.propagate = False
    logger.setLevel(os.environ.get("IM3D_LOG_LEVEL", "INFO").upper())
    return logger
