"""What an actor says in its log."""

from __future__ import annotations

import io
import json
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from factory.line import actor_log
from factory.line.actor_log import JsonFormatter, Reporter
from factory.line.failure import Failure


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> tuple[Reporter, io.StringIO]:
    """A reporter whose board listens to nothing, and its log."""
    log, stream = logging.Logger("answer", "INFO"), io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    log.addHandler(handler)
    monkeypatch.setattr(actor_log, "_places", lambda: ("actor", "node"))
    monkeypatch.setattr(actor_log, "json_logger", lambda: log)
    deaf = SimpleNamespace(record=SimpleNamespace(remote=lambda *_, **__: None))
    return Reporter("image", deaf), stream


def row(prompt_id: str, **error: Any) -> dict[str, Any]:
    return {"prompt_id": prompt_id, "error_stage": None, "error_type": None, "error_message": None} | error


def test_rows_that_end_together_have_a_line_each(answer: tuple[Reporter, io.StringIO]) -> None:
    say, stream = answer
    failed = row("c", error_stage="image", error_type="ValueError", error_message="http://me:hunter2@host")
    say.report("end", [row("a"), row("b"), failed, row("d", error_stage="prompts")], 2.0)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["event"], line["level"], line["prompt_id"]) for line in lines] == [
        ("failed", "warning", "c"), ("end", "info", "a"), ("end", "info", "b"),
    ]  # fmt: skip
    assert all(line["stage"] == "image" and line["host"] and line["time"] for line in lines)
    assert lines[1]["seconds"] == 0.5
    assert "hunter2" not in stream.getvalue()


def test_failed_try_is_logged_with_its_whole_trace(answer: tuple[Reporter, io.StringIO]) -> None:
    say, stream = answer
    try:
        raise ValueError("no ink at http://me:hunter2@host") from KeyError("before " * 1000)
    except ValueError as error:
        say.try_failed([row("a"), row("b")], Failure.of(error))
    [line] = map(json.loads, stream.getvalue().splitlines())
    assert (line["event"], line["level"], line["prompt_ids"]) == ("try_failed", "error", ["a", "b"])
    assert line["exception"].count("before ") >= 1000
    assert "test_actor_log.py" in line["exception"]
    assert "hunter2" not in stream.getvalue()
