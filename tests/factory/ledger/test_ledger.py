"""Commits, publishing and leases: one record a row under races and crashes."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from factory.ledger.commit_protocol import COMMITS, commit, commit_block
from factory.ledger.keys import KeySet, key_of
from factory.ledger.lease import Lease, LeaseLost
from factory.ledger.ledger import ASSETS, DEAD, Ledger
from factory.ledger.schemas import DEAD_LETTERS
from factory.stages.asset_table import assets_schema
from factory.stages.chain import written_columns
from factory.storage.local import LocalStore

SCHEMA = assets_schema(written_columns(), ["clip_text_renders_small"])


def asset(prompt_id: str, **values: Any) -> dict[str, Any]:
    return dict.fromkeys(SCHEMA.names) | {"prompt_id": prompt_id, "prompt": "x"} | values


def letter(prompt_id: str) -> dict[str, Any]:
    known = {"prompt_id": prompt_id, "prompt": "x", "error_stage": "video", "error_type": "E", "error_message": "m"}
    return dict.fromkeys(DEAD_LETTERS.names) | known


def ids(root: Path, folder: str) -> list[str]:
    return [i for p in sorted((root / folder).glob("*.parquet")) for i in pq.read_table(p)["prompt_id"].to_pylist()]


def _race(root: str, worker: int, barrier, results) -> None:
    store = LocalStore(root)
    barrier.wait()
    wins = [n for n in range(20) if commit(store, asset(f"p{n}", run_id=str(worker)), SCHEMA)]
    results.put((worker, wins))


def test_racing_commits_have_one_winner_whose_record_stays(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(4), context.Queue()
    workers = [context.Process(target=_race, args=(str(tmp_path), n, barrier, results)) for n in range(4)]
    for worker in workers:
        worker.start()
    wins = dict(results.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join(60)
    assert sorted(n for won in wins.values() for n in won) == list(range(20))
    ledger = Ledger(LocalStore(str(tmp_path)))
    ledger.publish()
    winners = {f"p{n}": str(worker) for worker, won in wins.items() for n in won}
    assert {row["prompt_id"]: row["run_id"] for row in ledger.rows(ASSETS)} == winners


def test_asset_and_dead_letter_of_one_prompt_exclude_each_other(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    assert commit(store, letter("a"), DEAD_LETTERS)
    assert not commit(store, asset("a"), SCHEMA)
    ledger = Ledger(store)
    ledger.publish()
    assert (ids(tmp_path, ASSETS), ids(tmp_path, DEAD)) == ([], ["a"])
    assert ledger.is_dead("a")
    assert "b" not in ledger


def test_uncommitted_files_are_invisible(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    store.put("files/a-123/asset.ply", b"data")
    ledger = Ledger(store)
    ledger.publish()
    assert "a" not in ledger
    assert ids(tmp_path, ASSETS) == []


def test_crash_between_publishing_and_tidying_repeats_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(str(tmp_path))
    for name in ("a", "b"):
        commit(store, asset(name), SCHEMA)
    commit(store, letter("c"), DEAD_LETTERS)
    ledger = Ledger(store)
    monkeypatch.setattr(store, "delete", lambda key: (_ for _ in ()).throw(SystemExit))
    with pytest.raises(SystemExit):
        ledger.publish()
    monkeypatch.undo()
    again = Ledger(LocalStore(str(tmp_path)))
    again.publish()
    assert sorted(ids(tmp_path, ASSETS)) == ["a", "b"]
    assert ids(tmp_path, DEAD) == ["c"]
    assert list((tmp_path / COMMITS).iterdir()) == []


def test_late_commit_of_a_published_prompt_is_void(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    commit(store, asset("a", run_id="first"), SCHEMA)
    Ledger(store).publish()
    assert commit(store, letter("a"), DEAD_LETTERS)
    ledger = Ledger(store)
    ledger.publish()
    assert [row["run_id"] for row in ledger.rows(ASSETS)] == ["first"]
    assert (ids(tmp_path, DEAD), ledger.is_dead("a")) == ([], False)


def test_parts_gather_many_commits_and_restore_without_them(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    ledger = Ledger(store, rows_per_part=8)
    for n in range(20):
        commit(store, asset(f"p{n}", clip_text_renders_small=float(n)), SCHEMA)
        ledger.refresh()
    ledger.publish()
    assert [len(pq.read_table(p)) for p in sorted((tmp_path / ASSETS).glob("*"))] == [8, 8, 4]
    assert {r["prompt_id"]: r["clip_text_renders_small"] for r in ledger.rows(ASSETS)} == {
        f"p{n}": n for n in range(20)
    }
    assert all(f"p{n}" in Ledger(store) for n in range(20))
    metadata = json.loads(pq.read_schema(next((tmp_path / ASSETS).iterdir())).metadata[b"huggingface"])
    assert metadata["info"]["features"]["image"] == {"_type": "Image"}


def test_assets_scored_by_different_models_share_a_ledger(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    other = assets_schema(written_columns(), ["clip_text_renders_large"])
    commit(store, asset("a", clip_text_renders_small=1.0), SCHEMA)
    commit(store, dict.fromkeys(other.names) | {"prompt_id": "b", "prompt": "x", "clip_text_renders_large": 2.0}, other)
    ledger = Ledger(store)
    ledger.publish()
    rows = {row["prompt_id"]: row for row in ledger.rows(ASSETS)}
    assert (rows["a"]["clip_text_renders_small"], rows["a"]["clip_text_renders_large"]) == (1.0, None)
    assert rows["b"]["clip_text_renders_large"] == 2.0


def test_outcomes_that_move_while_the_ledger_is_read_are_seen(tmp_path: Path) -> None:
    """A writer that is just losing the folder publishes between two looks of the one that takes over."""
    slow = Ledger(LocalStore(str(tmp_path)))
    commit(slow.store, asset("a"), SCHEMA)

    class Watched(LocalStore):
        def keys(self, prefix: str) -> Any:
            found = list(super().keys(prefix))
            slow.publish()
            return iter(found)

    assert "a" in Ledger(Watched(str(tmp_path)))
    assert ids(tmp_path, ASSETS) == ["a"]


def test_revived_dead_letters_run_again(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    ledger = Ledger(store)
    ledger.add_dead_letters([letter("a"), letter("b"), letter("c")])
    ledger.publish()
    assert ledger.requeue({"a", "c", "unknown"}) == 2
    assert ("a" in ledger, "b" in ledger, "c" in ledger) == (False, True, False)
    commit(store, asset("a"), SCHEMA)
    ledger.refresh()
    ledger.publish()
    assert (ids(tmp_path, ASSETS), ids(tmp_path, DEAD)) == (["a"], ["b"])


@pytest.mark.parametrize("prompt_id", ["../../evil", "a/b", "~2", "\x00", "ü" * 500])
def test_ledger_keys_are_safe_file_names(tmp_path: Path, prompt_id: str) -> None:
    store = LocalStore(str(tmp_path / "out"))
    commit(store, letter(prompt_id), DEAD_LETTERS)
    assert [p.name for p in (tmp_path / "out" / COMMITS).iterdir()] == [f"{key_of(prompt_id)}.parquet"]
    assert {p.name for p in tmp_path.iterdir()} == {"out"}


def test_second_writer_is_refused_until_the_first_has_left(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    with Lease(store), pytest.raises(ValueError, match=rf"process {os.getpid()}\) writes here"):
        Lease(store).__enter__()
    with Lease(store) as lease:
        assert lease.key == "lease/00000001.json"
    assert [p.name for p in (tmp_path / "lease").iterdir()] == ["00000001.json"]


def test_lease_of_a_killed_process_is_free_at_once(tmp_path: Path) -> None:
    code = (
        f"import time; from factory.ledger.lease import Lease; from factory.storage.local import LocalStore\n"
        f"Lease(LocalStore({str(tmp_path)!r})).__enter__(); print('held', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    with pytest.raises(ValueError, match="writes here"):
        Lease(LocalStore(str(tmp_path))).__enter__()
    child.kill()
    child.wait()
    with Lease(LocalStore(str(tmp_path))) as lease:
        assert lease.key.endswith("00000001.json")


def test_lease_of_another_host_goes_stale(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    record = {"owner": "x", "host": f"not-{socket.gethostname()}", "pid": 1, "released": False, "started": 0.0}
    store.put("lease/00000007.json", json.dumps(record | {"time": time.time() - 30}).encode())
    with pytest.raises(ValueError, match=r"last seen 3[01] s ago"):
        Lease(store, stale_seconds=60).__enter__()
    with Lease(store, stale_seconds=20) as lease:
        assert lease.key == "lease/00000008.json"


def many(count: int) -> list[str]:
    return [f"p{n}" for n in range(count)]


def test_two_hundred_thousand_rows_resume_from_snapshots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts in plenty and a few records: every id is known again, from a few objects."""
    store, count, size = LocalStore(str(tmp_path)), 200_000, 4_000
    ledger = Ledger(store, rows_per_part=size)
    thin = pa.schema([("prompt_id", pa.string()), ("prompt", pa.string())])
    dead = pa.schema([*thin, ("error_stage", pa.string())])
    for start in range(0, count, size):
        rows = [{"prompt_id": i, "prompt": "x", "error_stage": "video"} for i in many(count)[start : start + size]]
        assert commit_block(store, rows[100:], thin)
        assert commit_block(store, rows[:100], dead)
        ledger.refresh()
    commit(store, {"prompt_id": "late", "prompt": "x"}, thin)
    opened: list[str] = []
    for name in ("get", "open"):
        plain = getattr(LocalStore, name)
        monkeypatch.setattr(
            LocalStore, name, lambda self, key, plain=plain: opened.append(key) or plain(self, key), raising=True
        )
    again = Ledger(LocalStore(str(tmp_path)))
    assert len(opened) < 50 < len(list((tmp_path / ASSETS).iterdir())) + len(list((tmp_path / DEAD).iterdir()))
    assert (len(again.done), len(again.dead)) == (count * 39 // 40 + 1, count // 40)
    assert again.missing([*many(count), "late", "new", "p200000"]).tolist() == [count + 1, count + 2]
    assert [again.is_dead(f"p{n}") for n in (99, 100, 4_000, 4_100)] == [True, False, True, False]


def test_records_of_a_block_retried_in_other_sizes_count_once(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    rows = {i: asset(i, run_id="first") for i in "abcd"}
    assert commit_block(store, [rows["a"], rows["b"]], SCHEMA)
    assert not commit_block(store, [asset("b", run_id="again"), asset("a", run_id="again")], SCHEMA)
    ledger = Ledger(store)
    assert commit_block(store, [asset("b", run_id="alone")], SCHEMA)
    assert commit_block(store, [asset(i, run_id="second") for i in "abcd"], SCHEMA)
    assert commit_block(store, [letter("c"), letter("a")], DEAD_LETTERS)
    ledger.publish()
    later = Ledger(store)
    commit_block(store, [asset(i, run_id="third") for i in "de"], SCHEMA)
    later.publish()
    runs = {row["prompt_id"]: row["run_id"] for row in later.rows(ASSETS)}
    settled = sorted(ids(tmp_path, ASSETS) + ids(tmp_path, DEAD))
    assert settled == list("abcde")
    assert (runs["a"], runs["b"], runs["e"]) == ("first", "first", "third")
    assert list((tmp_path / COMMITS).iterdir()) == []


def test_snapshots_are_only_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("factory.ledger.snapshots.PARTS_PER_SNAPSHOT", 2)
    monkeypatch.setattr("factory.ledger.snapshots.MAX_SNAPSHOTS", 3)
    store = LocalStore(str(tmp_path))
    for n in range(30):
        ledger = Ledger(store, rows_per_part=1)
        commit(store, asset(f"p{n}") if n % 3 else letter(f"p{n}"), SCHEMA if n % 3 else DEAD_LETTERS)
        ledger.refresh()
        assert len(list((tmp_path / "snapshots" / ASSETS).glob("*"))) <= 3 if n > 3 else True
    assert Ledger(store).missing(many(31)).tolist() == [30]
    next((tmp_path / "snapshots" / ASSETS).iterdir()).unlink()
    assert Ledger(store).missing(many(31)).tolist() == [30]
    assert Ledger(store).requeue({"p3", "p9"}) == 2
    assert Ledger(store).missing(many(31)).tolist() == [3, 9, 30]


def test_keys_that_share_their_upper_half_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 4, (300, 2)).astype(np.uint64)
    known = KeySet(keys[:5])
    known.add(keys[5:150])
    truth = {tuple(key) for key in keys[:150].tolist()}
    assert len(known) == len(truth)
    assert known.find(keys).tolist() == [tuple(key) in truth for key in keys.tolist()]
    known.remove(keys[:3])
    truth -= {tuple(key) for key in keys[:3].tolist()}
    assert known.find(keys).tolist() == [tuple(key) in truth for key in keys.tolist()]


def test_newest_rows_come_from_the_last_parts(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    ledger = Ledger(store, rows_per_part=3)
    for n in range(10):
        commit(store, asset(f"p{n}"), SCHEMA)
        ledger.refresh()
    ledger.publish()
    names = [row["prompt_id"] for row in ledger.rows(ASSETS, ["prompt_id"], newest=5)]
    assert names == ["p5", "p6", "p7", "p8", "p9"]
    assert len(list(ledger.rows(ASSETS, newest=99))) == 10


def wait_forever(store: LocalStore, **settings: Any) -> None:
    with Lease(store, beat_seconds=0.05, **settings):
        while True:
            time.sleep(0.05)


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN], ids=["terminal", "background"])
def test_superseded_run_is_stopped(tmp_path: Path, handler: Any) -> None:
    store = LocalStore(str(tmp_path))
    before = signal.signal(signal.SIGINT, handler)
    threading.Timer(0.5, lambda: store.create("lease/00000001.json", b"{}")).start()
    try:
        with pytest.raises(LeaseLost, match="took this folder over"):
            wait_forever(store)
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_superseded_run_publishes_nothing(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    lease = Lease(store)
    with lease:
        ledger = Ledger(store, lease=lease)
        commit(store, asset("a"), SCHEMA)
        store.create("lease/00000001.json", b"{}")
        with pytest.raises(LeaseLost):
            ledger.publish()
        assert ids(tmp_path, ASSETS) == []
        store.delete("lease/00000001.json")
        lease.lost = ""


def test_run_without_heartbeat_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(str(tmp_path))
    beats = iter(range(5))
    put = LocalStore.put

    def failing(self: LocalStore, key: str, data: bytes) -> None:
        if next(beats, None) is None:
            raise OSError("the disk has gone")
        put(self, key, data)

    monkeypatch.setattr(LocalStore, "put", failing)
    with pytest.raises(LeaseLost, match="no heartbeat"):
        wait_forever(store, stale_seconds=0.2)


def test_part_of_another_writer_is_never_replaced(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    first, second = Ledger(store), Ledger(store)
    commit(store, asset("a"), SCHEMA)
    first.publish()
    commit(store, asset("b"), SCHEMA)
    with pytest.raises(LeaseLost, match="written by another run"):
        second.publish()
    assert ids(tmp_path, ASSETS) == ["a"]
