"""Serve the page of a study and keep the answers, one file an annotator: `Collector`.

GET  /…        files of the page, with byte ranges (Safari plays no video without them)
GET  /collect  {"study": id}, by which the page knows that answers are taken here
POST /answers  the page's CSV: 200 when kept, 400 with the reason, 409 when this annotator's answers are already here
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from eval.answers import check_answers
from eval.assignment import Task

MAX_BYTES = 1 << 20
"""Of one annotator's answers."""
TIMEOUT_SECONDS = 30.0
Keep = Callable[[str, bytes], bool]
"""Stores an annotator's answers; False when there were others already."""


class Collector(ThreadingHTTPServer):
    """Serves `page` and gives checked answers to `keep`.

    Args:
        address: host and port; port 0 takes a free one.
        page: folder of the page; nothing outside it is served.
        study: the study's id.
        tasks: every task by task_id.
        keep: called with an annotator and the CSV, from several threads.
    """

    daemon_threads = True

    def __init__(self, address: tuple[str, int], page: Path, study: str, tasks: Mapping[str, Task], keep: Keep) -> None:
        self.page, self.study, self.tasks, self.keep = page, study, tasks, keep
        super().__init__(address, _Handler)

    @property
    def url(self) -> str:
        """The page's address."""
        host, port = self.server_address[:2]
        return f"http://{host}:{port}/index.html"


class _Handler(SimpleHTTPRequestHandler):
    server: Collector
    timeout = TIMEOUT_SECONDS
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".js": "text/javascript", ".mp4": "video/mp4"}

    def __init__(self, request: Any, client_address: Any, server: Collector) -> None:
        super().__init__(request, client_address, server, directory=str(server.page))

    def do_GET(self) -> None:
        """The page's files, whole or a range of their bytes, and /collect."""
        if self.path == "/collect":
            self._answer(HTTPStatus.OK, json.dumps({"study": self.server.study}), "application/json")
        elif "Range" in self.headers and self._send_range():
            return
        else:
            super().do_GET()

    def do_POST(self) -> None:
        """An annotator's answers."""
        if self.path != "/answers":
            return self._answer(HTTPStatus.NOT_FOUND, "answers go to /answers")
        origin = self.headers.get("Origin")
        if origin and origin.split("://", 1)[-1] != self.headers.get("Host"):
            return self._answer(HTTPStatus.FORBIDDEN, "answers are taken from this study's own page only")
        length = self.headers.get("Content-Length") or ""
        if not re.fullmatch(r"[0-9]{1,9}", length) or int(length) > MAX_BYTES:
            self.close_connection = True
            return self._answer(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"answers must state a length of at most {MAX_BYTES}"
            )
        self._answer(*self._kept(self.rfile.read(int(length))))

    def _kept(self, data: bytes) -> tuple[HTTPStatus, str]:
        try:
            answers, problems = check_answers(data.decode(), self.server.study, self.server.tasks)
        except UnicodeDecodeError:
            answers, problems = [], ["the answers are no UTF-8 text"]
        annotators = {answer.task.annotator for answer in answers}
        if problems or len(annotators) != 1:
            return HTTPStatus.BAD_REQUEST, problems[0] if problems else "send the answers of one annotator"
        if not self.server.keep(annotators.pop(), data):
            return HTTPStatus.CONFLICT, "other answers of this annotator have arrived before"
        return HTTPStatus.OK, f"{len(answers)} answers kept"

    def _send_range(self) -> bool:
        """Answer a request for one range of bytes; False where the whole file is the right answer."""
        path = Path(self.translate_path(self.path))
        wanted = re.fullmatch(r"bytes=([0-9]*)-([0-9]*)", self.headers["Range"])
        if not path.is_file() or not wanted or wanted.groups() == ("", ""):
            return False
        size = path.stat().st_size
        first, last = wanted.groups()
        start = int(first) if first else max(0, size - int(last))
        stop = min(size, int(last) + 1) if first and last else size
        if start >= stop:
            self._answer(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "", headers={"Content-Range": f"bytes */{size}"})
            return True
        with path.open("rb") as stream:
            stream.seek(start)
            body = stream.read(stop - start)
        headers = {"Content-Range": f"bytes {start}-{stop - 1}/{size}"}
        self._answer(HTTPStatus.PARTIAL_CONTENT, body, self.guess_type(path), headers)
        return True

    def _answer(
        self, status: HTTPStatus, body: str | bytes, kind: str = "text/plain; charset=utf-8", headers: Any = None
    ) -> None:
        data = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": len(data), **(headers or {})}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(data)

    def list_directory(self, path: Any) -> None:
        """No listing: tasks are named by secret codes."""
        self.send_error(HTTPStatus.NOT_FOUND)

    def end_headers(self) -> None:
        """Headers that every answer carries."""
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: who answered is printed by the job."""
