"""The S3 store behind a proxy that breaks requests: what was asked happens once, or an error says why not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from benchmarks.faults import KINDS, FaultProxy, Faults, fault_proxy, read_counts
from benchmarks.s3_server import CREDENTIALS
from factory.storage.interface import StorageError
from factory.storage.s3 import S3Store
from factory.storage.store import StorageConfig, open_store

pytestmark = [pytest.mark.faults, pytest.mark.timeout(200)]


@pytest.fixture
def proxy(s3: str) -> Iterator[FaultProxy]:
    with FaultProxy(s3, Faults(seconds=1.0)) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("factory.storage.s3.FIRST_PAUSE", 0.02)


def store(proxy: FaultProxy, folder: str, **settings) -> S3Store:
    return S3Store(f"s3://test/{folder}", StorageConfig(endpoint=proxy.url, **({"timeout_seconds": 5.0} | settings)))


def first(proxy: FaultProxy, method: str, kind: str, times: int = 1) -> None:
    """Break the first requests of a method."""
    left = [kind] * times
    proxy.script = lambda seen, path: left.pop() if seen == method and left else None


@pytest.mark.parametrize("kind", ["error_500", "error_503", "refuse", "lose_answer"])
def test_writes_survive_every_fault(proxy: FaultProxy, kind: str) -> None:
    place = store(proxy, f"write-{kind}")
    first(proxy, "PUT", kind, 3)
    place.put("a", b"data")
    assert proxy.counts[kind] == 3
    assert place.get("a") == b"data"


@pytest.mark.parametrize("kind", ["error_500", "refuse", "truncate", "stall"])
def test_reads_survive_every_fault(proxy: FaultProxy, kind: str) -> None:
    place, data = store(proxy, f"read-{kind}", timeout_seconds=0.5), os.urandom(300_000)
    place.put("a", data)
    first(proxy, "GET", kind, 2)
    assert place.get("a") == data
    assert proxy.counts[kind] == 2


def test_body_that_drips_is_asked_for_again(proxy: FaultProxy) -> None:
    proxy.faults.seconds = 4.0
    place, data = store(proxy, "drip", timeout_seconds=1.0), os.urandom(1 << 20)
    place.put("a", data)
    first(proxy, "GET", "slow")
    assert place.get("a") == data
    assert (proxy.counts["slow"], proxy.counts["passed"]) == (1, 2)


def test_lost_answer_of_a_create_is_decided_by_what_is_there(proxy: FaultProxy) -> None:
    """The first try wrote; the second is refused because of it: that is ours. Somebody else's object is not."""
    place = store(proxy, "create")
    first(proxy, "PUT", "lose_answer")
    assert place.create("ours", b"mine")
    assert proxy.counts["lose_answer"] == 1
    assert place.get("ours") == b"mine"
    first(proxy, "PUT", "lose_answer")
    assert not place.create("ours", b"other")
    assert place.get("ours") == b"mine"


def test_object_that_went_away_again_is_created_anew(s3: str, proxy: FaultProxy) -> None:
    """The first try wrote, the answer was lost, and the object was collected before the second asks what it holds."""
    place, direct = store(proxy, "gone"), S3Store("s3://test/gone", StorageConfig(endpoint=s3))
    first(proxy, "PUT", "lose_answer")
    deleted = []

    def script(method: str, path: str) -> str | None:
        if method == "GET" and not deleted:
            deleted.append(path)
            direct.delete("a")
        return "lose_answer" if method == "PUT" and proxy.counts["lose_answer"] == 0 else None

    proxy.script = script
    assert place.create("a", b"mine")
    assert (len(deleted), place.get("a")) == (1, b"mine")


def test_large_file_goes_up_in_parts_and_a_broken_part_again(proxy: FaultProxy) -> None:
    place, data = store(proxy, "large", part_mb=5), os.urandom(12 << 20)
    parts = []

    def script(method: str, path: str) -> str | None:
        if method == "PUT" and "partNumber" in path:
            parts.append(path)
            return "error_503" if len(parts) == 1 else None
        return None

    proxy.script = script
    place.put("a", data)
    assert len({path.split("partNumber=")[1].split("&")[0] for path in parts}) == 3
    assert len(parts) == 4
    assert place.get("a") == data


def test_sweep_gives_up_unfinished_uploads(proxy: FaultProxy) -> None:
    place = store(proxy, "sweep")
    upload = place.client.create_multipart_upload(Bucket="test", Key="sweep/half")
    place.client.upload_part(Bucket="test", Key="sweep/half", UploadId=upload["UploadId"], PartNumber=1, Body=b"x")
    place.sweep()
    assert not place.client.list_multipart_uploads(Bucket="test", Prefix="sweep/").get("Uploads")
    assert list(place.keys("x/")) == []


def test_under_random_faults_one_writer_wins_and_nothing_is_lost(s3: str) -> None:
    shares = dict.fromkeys(KINDS, 0.03)
    with fault_proxy(s3, Faults(**shares, seconds=0.05), seed=1) as url:
        place = S3Store("s3://test/random", StorageConfig(endpoint=url, timeout_seconds=5.0, attempts=20))
        jobs = [(f"k/{n % 20:02d}", f"{n}".encode()) for n in range(60)]
        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(lambda job: place.create(*job), jobs))
        counts = read_counts(url)
    direct = S3Store("s3://test/random", StorageConfig(endpoint=s3))
    winners: dict[str, bytes] = {}
    for (key, data), one in zip(jobs, won, strict=True):
        if one:
            assert key not in winners
            winners[key] = data
    assert {key: direct.get(key) for key in direct.keys("k/")} == winners
    assert len(winners) == 20
    assert sum(counts.get(kind, 0) for kind in KINDS) > 5


def test_error_that_stays_names_object_and_tries_but_no_credentials(proxy: FaultProxy) -> None:
    place = store(proxy, "broken", attempts=3)
    proxy.script = lambda method, path: "error_500"
    with pytest.raises(StorageError, match=r"s3://test/broken/a: .*3 tries") as error:
        place.put("a", b"")
    assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in str(error.value)


def test_what_cannot_succeed_is_not_tried_again(proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    with pytest.raises(StorageError, match="InvalidAccessKeyId"):
        store(proxy, "x").put("a", b"")
    assert proxy.counts["passed"] == 1


def test_anonymous_requests_carry_no_signature(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CREDENTIALS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/none")
    with pytest.raises(StorageError, match="no AWS credentials; set AWS_PROFILE"):
        S3Store("s3://test/a", StorageConfig(endpoint=s3)).get("a")
    with pytest.raises(StorageError, match="AccessDenied"):
        S3Store("s3://test/a", StorageConfig(endpoint=s3, anonymous=True)).get("a")


ROLE_ANSWER = """<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>
<AccessKeyId>{CREDENTIALS[AWS_ACCESS_KEY_ID]}</AccessKeyId>
<SecretAccessKey>{CREDENTIALS[AWS_SECRET_ACCESS_KEY]}</SecretAccessKey>
<SessionToken></SessionToken><Expiration>2999-01-01T00:00:00Z</Expiration>
</Credentials></AssumeRoleResult></AssumeRoleResponse>"""


def test_role_is_assumed_with_the_credentials_at_hand(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The keys of this process are worthless; those that a token service hands out for the role are the server's."""
    asked = []

    class TokenService(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            data = ROLE_ANSWER.format(CREDENTIALS=CREDENTIALS).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    with ThreadingHTTPServer(("127.0.0.1", 0), TokenService) as service:
        Thread(target=service.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{service.server_address[1]}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "worthless")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "worthless1")
        role = StorageConfig(endpoint=s3, role_arn="arn:aws:iam::123456789012:role/line")
        place = open_store("s3://test/role", role)
        place.put("a", b"data")
        with place.open("a") as stream:
            assert stream.read() == b"data"
        service.shutdown()
    assert "RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fline" in asked[0]
