"""A small line under kills and S3 faults, with a reader watching: the short version of `python -m benchmarks.chaos`."""

from __future__ import annotations

import os
import sys
from itertools import cycle
from pathlib import Path

import pytest

from benchmarks.faults import Faults, fault_proxy, read_counts
from benchmarks.slow_line import picture, whole
from benchmarks.storm import Reader, account, storm
from factory.storage.store import StorageConfig, open_store

COUNT, KINDS = 16, ("driver", "actor")
ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]


def test_kills_and_faults_lose_repeat_and_half_show_nothing(s3: str) -> None:
    place = "s3://test/chaos"
    command = [sys.executable, "-m", "benchmarks.slow_line", place, str(COUNT)]
    store = open_store(place, StorageConfig(endpoint=s3))
    reader = Reader(store, whole)
    with fault_proxy(s3, Faults(error_503=0.05, lose_answer=0.05, truncate=0.02), seed=1) as proxy:
        environment = os.environ | {"AWS_ENDPOINT_URL": proxy, "PYTHONPATH": str(ROOT)}
        with reader.watching():
            answer = storm(command, environment, reader, COUNT, len(KINDS), cycle(KINDS))
        faults = read_counts(proxy)
    reader.poll()
    counts = account(store, [f"p{n}" for n in range(COUNT)])
    assert answer["exit"] == 0
    assert answer["kills"] == len(KINDS)
    assert answer["orphans"] == 0
    assert (counts["missing"], counts["duplicates"]) == (0, 0)
    assert counts["assets"] == COUNT
    assert reader.partial == []
    assert reader.polls > 5
    assert faults["error_503"] + faults["lose_answer"] > 0
    assert list(store.keys("commits/")) == []


def test_reader_notices_half_an_asset_and_one_that_vanishes(tmp_path: Path) -> None:
    from factory.ledger.commit_protocol import commit
    from factory.stages.asset_table import assets_schema
    from factory.stages.chain import written_columns

    store, schema = open_store(str(tmp_path)), assets_schema(written_columns())
    commit(store, dict.fromkeys(schema.names) | {"prompt_id": "a", "prompt": "x", "seed": 1}, schema)
    store.put("files/a/first", picture(1))
    store.put("files/a/second", picture(2))
    reader = Reader(store, whole)
    reader.poll()
    assert reader.partial == ["a"]
    for record in (tmp_path / "commits").iterdir():
        record.unlink()
    reader.poll()
    assert reader.partial == ["a", "a vanished"]
