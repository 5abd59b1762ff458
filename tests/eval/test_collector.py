"""The collecting server: what it hands out, takes and refuses."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest

from eval.answers import COLUMNS
from eval.assignment import StudyConfig, assign
from eval.collector import MAX_BYTES, Collector

TASKS = assign([("theirs", "p")], "ours", StudyConfig(per_question=3))
HEAD = ",".join(COLUMNS)
LINE = f"s1,{TASKS[0].annotator},{TASKS[0].task_id},left,1.5,2026-01-01T00:00:00Z"


class Client:
    """One request after another to a server in this process."""

    def __init__(self, folder: Path) -> None:
        (folder / "page").mkdir()
        (folder / "page" / "a.mp4").write_bytes(bytes(range(100)))
        (folder / "page" / "index.html").write_text("<p>page")
        (folder / "assignment.csv").write_text("secret")
        self.kept: dict[str, bytes] = {}
        known = {task.task_id: task for task in TASKS}
        self.server = Collector(("127.0.0.1", 0), folder / "page", "s1", known, self.keep)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def keep(self, annotator: str, data: bytes) -> bool:
        return self.kept.setdefault(annotator, data) == data

    def ask(self, method: str, path: str, body: str | None = None, **headers: str) -> tuple[HTTPResponse, bytes]:
        connection = HTTPConnection("127.0.0.1", self.server.server_address[1], timeout=30)
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer, answer.read()


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    client = Client(tmp_path)
    yield client
    client.server.shutdown()
    client.server.server_close()


def test_good_answers_are_kept_and_a_repeat_changes_nothing(client: Client) -> None:
    answer, text = client.ask("POST", "/answers", f"{HEAD}\n{LINE}\n")
    assert (answer.status, text) == (200, b"1 answers kept")
    assert client.ask("POST", "/answers", f"{HEAD}\n{LINE}\n")[0].status == 200
    other = LINE.replace("left", "right")
    assert client.ask("POST", "/answers", f"{HEAD}\n{other}\n")[0].status == 409
    assert client.kept == {TASKS[0].annotator: f"{HEAD}\n{LINE}\n".encode()}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("", "columns are missing"),
        (HEAD, "send the answers of one annotator"),
        (f"{HEAD}\n{LINE.replace('left', 'up')}", "line 2: choice is 'up'"),
        (f"{HEAD}\n{LINE.replace('s1', 's2', 1)}", "line 2: study is 's2'"),
        (f"{HEAD}\n{LINE}\n{LINE}", "line 3: task"),
    ],
)
def test_bad_answers_are_refused_with_the_reason(client: Client, body: str, reason: str) -> None:
    answer, text = client.ask("POST", "/answers", body)
    assert answer.status == 400
    assert reason in text.decode()
    assert not client.kept


def test_strangers_and_floods_are_refused(client: Client) -> None:
    body = f"{HEAD}\n{LINE}\n"
    assert client.ask("POST", "/answers", body, Origin="https://example.org")[0].status == 403
    assert client.ask("POST", "/elsewhere", body)[0].status == 404
    assert client.ask("POST", "/answers", None, **{"Content-Length": str(MAX_BYTES + 1)})[0].status == 413
    assert client.ask("POST", "/answers", None, **{"Content-Length": "-1"})[0].status == 413
    assert not client.kept


def test_page_and_ranges_of_bytes(client: Client) -> None:
    assert json.loads(client.ask("GET", "/collect")[1]) == {"study": "s1"}
    answer, text = client.ask("GET", "/index.html?a=1")
    assert (answer.status, text, answer.headers["X-Content-Type-Options"]) == (200, b"<p>page", "nosniff")
    for wanted, expected in (("0-1", range(2)), ("90-", range(90, 100)), ("-5", range(95, 100)), ("98-200", (98, 99))):
        answer, data = client.ask("GET", "/a.mp4", Range=f"bytes={wanted}")
        assert (answer.status, data) == (206, bytes(expected))
        assert answer.headers["Content-Range"] == f"bytes {expected[0]}-{expected[-1]}/100"
        assert answer.headers["Content-Type"] == "video/mp4"
    assert client.ask("GET", "/a.mp4", Range="bytes=100-")[0].status == 416
    assert client.ask("GET", "/a.mp4", Range="lines=1-2")[0].status == 200


@pytest.mark.parametrize("path", ["/../assignment.csv", "/%2e%2e/assignment.csv", "/tasks", "/"[:0] + "//"])
def test_nothing_else_is_served(client: Client, path: str) -> None:
    (client.server.page / "tasks").mkdir()
    (client.server.page / "index.html").unlink()
    answer, text = client.ask("GET", path)
    assert answer.status in (301, 404)
    assert b"secret" not in text
    assert b"assignment" not in text
    assert client.ask("GET", path, Range="bytes=0-3")[0].status in (301, 404)
