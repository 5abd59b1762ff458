"""Rows that no one should send, at the smallest size; `python -m benchmarks.hostile` runs ten thousand."""

from __future__ import annotations

import sys

import pytest

from benchmarks.hostile import FORBIDDEN, measure


@pytest.fixture(scope="module")
def figures() -> dict:
    return measure(240, seed=3)


def test_every_row_ends_once(figures: dict) -> None:
    assert (figures["accounted"], figures["missing"], figures["duplicates"]) == (240, 0, 0)
    assert 0 < figures["assets"] < 240


def test_nothing_is_executed_fetched_or_written_elsewhere(figures: dict) -> None:
    assert [figures[what] for what in ("executed", "forbidden", "fetched", "outside")] == [0, 0, 0, 0]


def test_reasons_are_those_of_checks_and_not_of_surprises(figures: dict) -> None:
    kinds = {reason.split(": ")[1] for reason in figures["reasons"] if ": " in reason}
    known = {"EmptyPrompt", "PromptTooLong", "InvalidPrompt", "InvalidUtf8", "InvalidId", "InvalidSeed", "DuplicateId"}
    assert kinds <= known | {"UnreadableImage", "ImageTooLarge", "UnreadableRow", "ValueError", "PictureSizeError"}


def test_memory_is_bounded(figures: dict) -> None:
    """The table holds pictures of 33 MiB, lines of 5 MB and bombs that unpack to gigabytes."""
    assert figures["rss_mb"] - figures["rss_before_mb"] < 700


def test_the_watch_would_notice(tmp_path) -> None:
    """An audit hook sees what the benchmark forbids: the events exist under these names."""
    seen = set()
    sys.addaudithook(lambda event, arguments: seen.add(event) if event in FORBIDDEN else None)
    import pickle
    import socket
    import subprocess

    subprocess.run([sys.executable, "-c", ""], check=True)
    pickle.loads(pickle.dumps(socket.AF_INET))
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        client.connect(server.getsockname())
    assert {"subprocess.Popen", "pickle.find_class", "socket.connect"} <= seen
