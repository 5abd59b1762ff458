"""A hub on this machine: the few answers of huggingface.co that downloading a repository needs."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "a" * 40


@dataclass
class FakeHub:
    """Repositories by id, each its files by name; what was asked for; and how it misbehaves."""

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    cut: set[str] = field(default_factory=set)
    """Files whose answers break off in the middle."""
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """Files and ranges."""
    tells: dict[str, dict[str, object]] = field(default_factory=dict)
    """What it says of a repository beside its files, as "cardData"."""
    pages: dict[str, bytes] = field(default_factory=dict)
    """Other answers, by path."""
    address: str = ""


class Answers(BaseHTTPRequestHandler):
    """What the server says of its `hub`."""

    @property
    def hub(self) -> FakeHub:
        return self.server.hub  # type: ignore[attr-defined]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        api = re.match(r"/api/models/([^/]+/[^/?]+)", self.path)
        file = re.match(r"/([^/]+/[^/]+)/resolve/[^/]+/([^?]+)", self.path)
        repository = (api or file)[1] if api or file else ""
        if self.path in self.hub.pages:
            self.answer(self.hub.pages[self.path])
        elif repository in self.hub.gated:
            self.send_response(403)
            self.send_header("X-Error-Code", "GatedRepo")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif repository not in self.hub.repositories:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif api:
            self.list_files(self.hub.repositories[repository], repository)
        elif file:
            self.give(file[2], self.hub.repositories[repository][file[2]])

    def list_files(self, files: dict[str, bytes], repository: str) -> None:
        siblings = [{"rfilename": name, "size": len(data)} | self.lfs(name, data) for name, data in files.items()]
        body = json.dumps({"id": repository, "sha": COMMIT, "siblings": siblings, "private": False,
                           "downloads": 0, "tags": []} | self.hub.tells.get(repository, {})).encode()  # fmt: skip
        self.answer(body)

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def lfs(self, name: str, data: bytes) -> dict[str, object]:
        sha256 = hashlib.sha256(data).hexdigest()
        return {"lfs": {"size": len(data), "sha256": sha256, "pointerSize": 1}} if "safetensors" in name else {}

    def give(self, name: str, data: bytes) -> None:
        wanted = self.headers.get("Range")
        if self.command == "GET":
            self.hub.asked.append((name, wanted))
        start = int(re.match(r"bytes=(\d+)-", wanted)[1]) if wanted else 0  # type: ignore[index]
        part = data[start:]
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(part)))
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(part[: len(part) // 2] if name in self.hub.cut else part)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    hub, server = FakeHub(), ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.hub = hub  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
