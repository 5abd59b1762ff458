"""Pictures by https:// from a server of this machine, which the tests alone let count as public."""

from __future__ import annotations

import contextlib
import datetime
import http.server
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from factory.prompts import download
from factory.prompts.download import DownloadError, checked_hosts, fetch, is_public
from factory.prompts.prompt_table import PromptTable, read_prompts
from recon.user_error import UserError
from tests.recon.meshes.gltf_writer import png

PICTURE = png(np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8))
LIMIT = 1 << 20


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate for a name, signed by itself, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "cert.pem").write_bytes(made.public_bytes(pem))
    (folder / "key.pem").write_bytes(private)
    return folder / "cert.pem", folder / "key.pem"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as the path says."""

    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        kind, _, rest = self.path[1:].partition("/")
        if kind == "moved":
            self.answer(302, b"", Location=rest)
        elif kind == "busy" and len(self.server.asked) < 3:
            self.answer(503, b"later")
        elif kind in ("gone", "down"):
            self.answer({"gone": 404, "down": 500}[kind], b"")
        elif kind == "large":
            self.answer(200, b"x" * (LIMIT + 1))
        elif kind == "endless":
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(b"x" * 65536)
        elif kind == "cut":
            self.answer(200, PICTURE[:-9], length=len(PICTURE))
        elif kind == "slow":
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                for _ in range(100):
                    self.wfile.write(b"x")
                    time.sleep(0.05)
        else:
            self.answer(200, PICTURE)

    def answer(self, status: int, body: bytes, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    """Called pictures.test; `asked`: the paths of requests."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate(folder, "pictures.test"))
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.asked: list[str] = []
        self.host = f"pictures.test:{self.server_address[1]}"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that names lead to, trusted and public for this test; pauses are short."""
    server = Server(tmp_path)
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest, **more: resolve("127.0.0.1", *rest, **more))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    monkeypatch.setattr(download, "is_public", lambda address: address == "127.0.0.1")
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0.01)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def fetched(server: Server, path: str, *more_hosts: str) -> bytes:
    return fetch(f"https://{server.host}{path}", checked_hosts([server.host, *more_hosts]), LIMIT)


def test_a_picture_of_an_allowed_host_is_fetched(server: Server) -> None:
    assert fetched(server, "/a b/ü.png?size=3&x=%20") == PICTURE
    assert server.asked == ["/a%20b/%C3%BC.png?size=3&x=%20"]


def test_passing_failures_are_tried_again_and_others_are_not(server: Server) -> None:
    assert fetched(server, "/busy") == PICTURE
    assert len(server.asked) == 3
    with pytest.raises(DownloadError, match=r"was not fetched in 4 tries: pictures\.test answered 500") as found:
        fetched(server, "/down")
    assert (found.value.kind, len(server.asked)) == ("ImageUnreachable", 7)
    with pytest.raises(DownloadError, match="it answered 404"):
        fetched(server, "/gone")
    assert len(server.asked) == 8


def test_an_answer_that_is_cut_off_is_no_picture(server: Server) -> None:
    with pytest.raises(DownloadError, match=r"in 4 tries: the answer was cut off|in 4 tries: IncompleteRead"):
        fetched(server, "/cut")


@pytest.mark.parametrize("path", ["/large", "/endless"])
def test_no_more_than_the_limit_is_taken(server: Server, path: str) -> None:
    with pytest.raises(DownloadError, match=f"has over {LIMIT} bytes") as found:
        fetched(server, path)
    assert found.value.kind == "ImageTooLarge"
    assert len(server.asked) == 1


def test_a_server_that_drips_is_left(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "SECONDS", 0.3)
    monkeypatch.setattr(download, "ATTEMPTS", 2)
    before = time.monotonic()
    with pytest.raises(DownloadError, match=r"in 2 tries: over 0\.3 s"):
        fetched(server, "/slow")
    assert time.monotonic() - before < 3


def test_redirects_lead_to_allowed_hosts_alone(server: Server) -> None:
    assert fetched(server, "/moved//picture") == PICTURE
    assert fetched(server, f"/moved/https://{server.host}/picture") == PICTURE
    before = len(server.asked)
    for target in (
        "https://other.test/a",
        "http://pictures.test/a",
        f"https://a:b@{server.host}/a",
        "file:///etc/passwd",
    ):
        with pytest.raises(DownloadError, match=r"is not fetched"):
            fetched(server, f"/moved/{target}")
    assert len(server.asked) == before + 4
    with pytest.raises(DownloadError, match="redirected over 3 times"):
        fetched(server, "/moved//moved//moved//moved//picture")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("https://other.test/a", "'other.test' is none of --image-hosts"),
        ("https://pictures.test:1/a", "'pictures.test:1' is none of --image-hosts"),
        ("https://pictures.test.evil.test/a", "is none of --image-hosts"),
        ("https://pictures.test@evil.test/a", "only https:// without user name"),
        ("http://pictures.test/a", "only https://"),
        ("ftp://pictures.test/a", "only https://"),
        ("https:///a", "is none of --image-hosts"),
        ("https://pictures.test:x/a", "is no address"),
    ],
)
def test_addresses_that_are_not_fetched(address: str, message: str) -> None:
    with pytest.raises(DownloadError, match=message):
        fetch(address, checked_hosts(["pictures.test"]), LIMIT)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "255.255.255.255", "::1", "::", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1",
        "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:7f00:1::",
    ],
)  # fmt: skip
def test_private_addresses_are_refused_after_their_name_was_looked_up(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not is_public(address)
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 443)) for ip in ("93.184.216.34", address)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    monkeypatch.setattr(socket, "create_connection", lambda *_: pytest.fail("it was connected to"))
    with pytest.raises(DownloadError, match="is no public one"):
        fetch("https://pictures.test/a", checked_hosts(["pictures.test"]), LIMIT)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:4700::1111", "::ffff:93.184.216.34"])
def test_public_addresses(address: str) -> None:
    assert is_public(address)


def test_certificates_are_checked(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate(tmp_path / "other", "pictures.test")[0]))
    with pytest.raises(DownloadError, match="self-signed certificate"):
        fetched(server, "/a")
    assert not server.asked


@pytest.mark.parametrize("host", ["https://pictures.test", "*.test", "", "pictures.test/a", "a b", "a:b"])
def test_hosts_are_names(host: str) -> None:
    with pytest.raises(UserError, match="is no host; name each one"):
        checked_hosts([host])


def test_rows_name_pictures_by_addresses_where_a_host_is_allowed(server: Server, tmp_path: Path) -> None:
    rows = [{"id": f"r{k}", "prompt": "a toy", "image": f"https://{server.host}/{k}.png"} for k in range(40)]
    rows[3]["image"], rows[5]["image"] = f"https://{server.host}/gone", "https://elsewhere.test/a.png"
    rows[7]["image"] = f"https://{server.host}/down"
    table = tmp_path / "p.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def letters(read: PromptTable) -> dict[str, str]:
        return {row.prompt_id: f"{row.error_type}: {row.error_message}" for row in read.rejected}

    read = read_prompts(str(table), image_hosts=[server.host])
    assert [prompt.prompt_id for prompt in read.prompts] == [f"r{k}" for k in range(40) if k not in (3, 5, 7)]
    assert all(prompt.image == PICTURE for prompt in read.prompts)
    found = letters(read)
    assert "answered 404" in found["r3"]
    assert "none of --image-hosts" in found["r5"]
    assert found["r7"].startswith("ImageUnreachable: ")
    asked = len(server.asked)
    refused = letters(read_prompts(str(table)))
    assert len(refused) == 40
    assert all("allow the host of an https:// address with --image-hosts" in reason for reason in refused.values())
    assert len(server.asked) == asked
