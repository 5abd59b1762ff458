"""Break HTTP requests on their way to a server: `fault_proxy`.

`FaultProxy` runs in this process and can be scripted request by request; `fault_proxy` is one in a
process of its own, with faults at random.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COUNTS = "/__faults__"
_HOP = {"connection", "keep-alive", "transfer-encoding", "proxy-connection", "te", "trailer", "upgrade"}


@dataclass(kw_only=True, slots=True)
class Faults:
    """Shares of requests that are broken, in [0, 1] together."""

    error_500: float = 0.0
    """Answered 500, and not forwarded."""
    error_503: float = 0.0
    """Answered 503 SlowDown, and not forwarded."""
    refuse: float = 0.0
    """Connection closed, and not forwarded."""
    lose_answer: float = 0.0
    """Forwarded and done by the server; the connection is closed instead of an answer."""
    stall: float = 0.0
    """Forwarded, then silence for `seconds`, then the connection is closed."""
    slow: float = 0.0
    """The answer's body drips over `seconds`."""
    truncate: float = 0.0
    """Half of the answer's body, then the connection is closed."""
    seconds: float = 2.0
    """How long stalls and slow bodies take."""

    def __post_init__(self) -> None:
        shares = [getattr(self, kind) for kind in KINDS]
        if min(shares) < 0 or sum(shares) > 1:
            raise ValueError(f"shares of faults are {shares}; each must be at least 0 and all together at most 1")


KINDS = ("error_500", "error_503", "refuse", "lose_answer", "stall", "slow", "truncate")


class FaultProxy:
    """Context manager: a proxy on 127.0.0.1 in front of `upstream`, an http:// address.

    Attributes:
        url: its address.
        counts: how many requests met which fault; "passed" for the others.
        script: called with method and path of each request; returns a fault's name, or None for chance to decide.
    """

    def __init__(self, upstream: str, faults: Faults | None = None, seed: int = 0) -> None:
        self.host = upstream.removeprefix("http://").rstrip("/")
        self.faults = faults or Faults()
        self.counts: Counter[str] = Counter()
        self.script: Callable[[str, str], str | None] = lambda method, path: None
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"proxy": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> FaultProxy:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def choose(self, method: str, path: str) -> str:
        """The fault of the next request, counted; "passed" for none."""
        scripted = self.script(method, path)
        with self._lock:
            kind = scripted or self._chance()
            self.counts[kind] += 1
            return kind

    def _chance(self) -> str:
        draw = self._random.random()
        for kind in KINDS:
            draw -= getattr(self.faults, kind)
            if draw < 0:
                return kind
        return "passed"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: FaultProxy

    def log_message(self, *_: Any) -> None:
        """Silence."""

    def _serve(self) -> None:
        if self.path == COUNTS:
            return self._answer(200, [], json.dumps(self.proxy.counts).encode())
        body = self._request_body()
        kind = self.proxy.choose(self.command, self.path)
        if kind in ("error_500", "error_503"):
            code = {"error_500": "InternalError", "error_503": "SlowDown"}[kind]
            text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>injected</Message></Error>"
            return self._answer(int(kind[-3:]), [("Content-Type", "application/xml")], text.encode())
        if kind == "refuse":
            return self._hang_up()
        status, headers, data = self._forwarded(body)
        if kind == "stall":
            time.sleep(self.proxy.faults.seconds)
        if kind in ("lose_answer", "stall"):
            return self._hang_up()
        self._answer(status, headers, data, kind)

    def _request_body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _forwarded(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        """Status, headers and body from the server; the Host header stays, since the signature covers it."""
        connection = http.client.HTTPConnection(self.proxy.host, timeout=60)
        kept = {name: value for name, value in self.headers.items() if name.lower() not in {*_HOP, "expect"}}
        kept["Content-Length"] = str(len(body))
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in kept.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOP]
            return answer.status, headers, answer.read()
        except (OSError, http.client.HTTPException):
            return 502, [], b""
        finally:
            connection.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes, kind: str = "passed") -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() != "content-length" or self.command == "HEAD":
                self.send_header(name, value)
        if self.command != "HEAD" and status not in (204, 304):
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if kind == "truncate":
            self.wfile.write(data[: len(data) // 2])
            return self._hang_up()
        steps = 20 if kind == "slow" else 1
        size = max(1, -(-len(data) // steps))
        for start in range(0, len(data), size):
            self.wfile.write(data[start : start + size])
            self.wfile.flush()
            time.sleep(self.proxy.faults.seconds / steps if kind == "slow" else 0)

    def _hang_up(self) -> None:
        self.close_connection = True

    def handle(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            super().handle()

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve


@contextlib.contextmanager
def fault_proxy(upstream: str, faults: Faults, seed: int = 0) -> Iterator[str]:
    """A `FaultProxy` in a process of its own; yields its address. `read_counts` tells what it has done."""
    settings = {"upstream": upstream, "faults": asdict(faults), "seed": seed}
    command = [sys.executable, "-c", "from benchmarks.faults import serve; serve()", json.dumps(settings)]
    root = Path(__file__).resolve().parents[1]
    process = subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def serve() -> None:
    """The process of `fault_proxy`: prints its address, ends with its parent."""
    settings = json.loads(sys.argv[1])
    with FaultProxy(settings["upstream"], Faults(**settings["faults"]), settings["seed"]) as proxy:
        print(proxy.url, flush=True)
        sys.stdin.read()


def read_counts(url: str) -> dict[str, int]:
    """How many requests met which fault at the proxy with this address."""
    with urllib.request.urlopen(url + COUNTS, timeout=10) as answer:
        return json.loads(answer.read())
