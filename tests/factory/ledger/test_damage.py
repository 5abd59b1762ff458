"""Damaged, stray and later files of an output folder: named, and no run is stopped where going on is safe."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from factory.ledger.commit_protocol import commit, commit_block
from factory.ledger.lease import Lease
from factory.ledger.ledger import Ledger
from factory.ledger.reader import ASSETS, LedgerReader
from factory.ledger.run_identity import inputs
from factory.line.output_folder import open_output
from factory.storage.interface import StorageConfig, StorageError
from factory.storage.local import LocalStore
from factory.storage.store import open_store
from jobs import evaluate
from recon.user_error import UserError

SCHEMA = pa.schema([pa.field("prompt_id", pa.string(), False), ("note", pa.string())])


def names(*numbers: int) -> list[str]:
    return [f"p{number}" for number in numbers]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Three parts of two rows, and a record."""
    store = open_store(str(tmp_path))
    ledger = Ledger(store)
    for start in (0, 2, 4):
        commit_block(store, [{"prompt_id": name, "note": "x" * 99} for name in names(start, start + 1)], SCHEMA)
        ledger.publish()
    commit(store, {"prompt_id": "p6", "note": ""}, SCHEMA)
    return tmp_path


def flip(path: Path) -> None:
    """Change a byte in the middle of the first page."""
    data = bytearray(path.read_bytes())
    data[40] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage", [flip, lambda path: path.write_bytes(path.read_bytes()[:-9]), lambda path: path.write_bytes(b"")]
)
def test_a_damaged_part_is_moved_aside_and_its_rows_run_again(out: Path, damage, caplog) -> None:
    part = out / "assets/part-000001.parquet"
    damage(part)
    assert LedgerReader(open_store(str(out))).missing(names(*range(7))).tolist() == [2, 3]
    assert part.exists()  # whoever only reads changes nothing
    assert "part-000001.parquet is damaged" in caplog.text
    ledger = Ledger(open_store(str(out)))
    assert ledger.missing(names(*range(7))).tolist() == [2, 3]
    assert "moved to damaged/, its rows run again" in caplog.text
    assert (out / "damaged/assets/part-000001.parquet").exists()
    commit_block(ledger.store, [{"prompt_id": name, "note": ""} for name in names(2, 3)], SCHEMA)
    ledger.publish()
    assert sorted(row["prompt_id"] for row in Ledger(open_store(str(out))).rows(ASSETS)) == names(*range(7))


def test_a_damaged_record_is_moved_aside_so_that_it_can_be_written_again(out: Path) -> None:
    (record,) = (out / "commits").iterdir()
    record.write_bytes(b"PAR1 cut off")
    with open_output(str(out), StorageConfig()) as folder:
        assert folder.ledger.missing(names(*range(7))).tolist() == [6]
        assert commit(folder.store, {"prompt_id": "p6", "note": ""}, SCHEMA)
        folder.ledger.publish()
        assert len(folder.ledger.missing(names(*range(7)))) == 0


def test_parts_that_snapshots_name_are_found_damaged_when_they_are_read(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    ledger = Ledger(store)
    for number in range(20):
        commit(store, {"prompt_id": f"p{number}", "note": "x" * 99}, SCHEMA)
        ledger.publish()
    flip(tmp_path / "assets/part-000003.parquet")
    ledger = Ledger(store)
    assert len(ledger.missing(names(*range(20)))) == 0  # by the snapshot
    assert len(list(ledger.rows(ASSETS))) == 19
    assert Ledger(store).missing(names(*range(20))).tolist() == [3]


def test_stray_and_damaged_helpers_stop_nobody(out: Path) -> None:
    for name in ("assets/.DS_Store", "assets/part-000001 (copy).parquet", "commits/notes.txt", "commits/x.parquet",
                 "snapshots/assets/readme", "lease/readme.txt", "dead_letters/old.parquet"):  # fmt: skip
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(b"stray")
    (out / "snapshots/assets/000000.npz").write_bytes(b"PK damaged")
    with open_output(str(out), StorageConfig()) as folder:
        assert len(folder.ledger.missing(names(*range(7)))) == 0
    assert (out / "commits/notes.txt").exists()


def test_a_damaged_lease_holds_the_folder_no_longer_than_a_silent_one(out: Path) -> None:
    lease = out / "lease/00000004.json"
    lease.parent.mkdir()
    lease.write_bytes(b"{")
    with pytest.raises(UserError, match=r"00000004\.json is damaged"), Lease(LocalStore(str(out))):
        pass
    os.utime(lease, (1, 1))
    with Lease(LocalStore(str(out))):
        assert not lease.exists()


def test_damaged_bookkeeping_is_one_sentence(out: Path) -> None:
    (out / "inputs.json").write_text('[{"prompts"')
    with pytest.raises(UserError, match=r"inputs\.json is damaged"):
        inputs(open_store(str(out)))
    (out / "settings.json").write_text("no json")
    with (
        pytest.raises(UserError, match=r"settings\.json holds no JSON object"),
        open_output(str(out), StorageConfig(), settings={"size": 3}),
    ):
        pass


def test_a_folder_of_a_later_version_is_refused_by_every_job(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_output(str(out), StorageConfig()):
        assert json.loads((out / "format.json").read_text())["format"] == 1
    (out / "format.json").write_text(json.dumps({"format": 2, "version": "9.1"}))
    with (
        pytest.raises(UserError, match=r"written by im3d-factory 9\.1 in folder format 2; .*: update im3d-factory"),
        open_output(str(out), StorageConfig()),
    ):
        pass
    assert evaluate.main(["--run", str(out)]) == 2
    assert "folder format 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("code", "message"),
    [(errno.ENOSPC, "the disk is full: free space"), (errno.EROFS, "read-only: choose another folder")],
)
def test_a_full_or_closed_disk_names_folder_and_way_out(tmp_path: Path, monkeypatch, code: int, message: str) -> None:
    store = LocalStore(str(tmp_path))

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    for write in (store.put, store.create):
        with pytest.raises(StorageError, match=f"{tmp_path} cannot be written: .*{message}"):
            write("a/b", b"data")
    assert not list((tmp_path / ".tmp").iterdir())


def test_ids_of_many_rows_keep_their_keys() -> None:
    from factory.ledger.keys import key_of, packed

    halves = [int(key_of("p1")[:16], 16), int(key_of("p1")[16:], 16)]
    np.testing.assert_array_equal(packed(["p0", "p1"])[1], np.array(halves, np.uint64))
