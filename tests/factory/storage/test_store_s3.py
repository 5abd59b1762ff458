"""The same promises on a real S3 server, SeaweedFS, started by the test."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from factory.ledger.commit_protocol import commit
from factory.ledger.lease import Lease
from factory.ledger.ledger import ASSETS, DEAD, Ledger
from factory.ledger.schemas import DEAD_LETTERS
from factory.prompts.prompt_table import read_prompts
from factory.stages.asset_table import assets_schema
from factory.stages.chain import written_columns
from factory.storage.store import open_store, pyarrow_filesystem

pytestmark = [pytest.mark.timeout(200), pytest.mark.usefixtures("s3")]


def test_objects_come_back_and_create_has_one_winner() -> None:
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


def test_ledger_and_lease_work_on_s3() -> None:
    store = open_store("s3://test/run")
    schema = assets_schema(written_columns())
    with Lease(store):
        with pytest.raises(ValueError, match="writes here"):
            Lease(open_store("s3://test/run")).__enter__()
        ledger = Ledger(store)
        assert commit(store, dict.fromkeys(schema.names) | {"prompt_id": "a", "prompt": "x"}, schema)
        assert not commit(store, dict.fromkeys(DEAD_LETTERS.names) | {"prompt_id": "a", "prompt": "x"}, DEAD_LETTERS)
        ledger.add_dead_letters(
            [dict.fromkeys(DEAD_LETTERS.names) | {"prompt_id": "b", "prompt": "x", "error_stage": "video"}]
        )
        ledger.publish()
    again = Ledger(open_store("s3://test/run"))
    assert ("a" in again, again.is_dead("a"), again.is_dead("b"), "c" in again) == (True, False, True, False)
    assert [row["prompt_id"] for row in again.rows(ASSETS)] == ["a"]
    assert [row["prompt_id"] for row in again.rows(DEAD)] == ["b"]
    filesystem, path = pyarrow_filesystem("s3://test/run/assets")
    assert pq.read_table(path, filesystem=filesystem)["prompt_id"].to_pylist() == ["a"]


def test_prompts_are_read_from_s3() -> None:
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
