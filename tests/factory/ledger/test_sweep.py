"""Sweeping: what no row names goes, after a grace period; what a row names stays, committed or published."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from factory.ledger.commit_protocol import commit
from factory.ledger.ledger import Ledger
from factory.ledger.sweep import sweep_files
from factory.stages.asset_table import assets_schema
from factory.stages.chain import written_columns
from factory.storage.local import LocalStore
from factory.storage.store import Store, open_store
from jobs import sweep

SCHEMA = assets_schema(written_columns())
USED = ["files/a-1/asset.ply", "files/a-1/views/00.png", "files/b-2/asset.ply"]
STRAY = ["files/a-9/asset.ply", "files/a-9/views/00.png"]


def fill(store: Store) -> None:
    """One published asset, one with a commit record only, and the files of one that never got so far."""
    for key in USED + STRAY:
        store.put(key, b"12345")
    for name, folder in (("a", "files/a-1"), ("b", "files/b-2")):
        entry = {"path": f"{folder}/asset.ply", "sha256": "", "size": 5}
        row: dict[str, Any] = dict.fromkeys(SCHEMA.names) | {"prompt_id": name, "prompt": "x", "ply": entry}
        commit(store, row, SCHEMA)
        if name == "a":
            Ledger(store).publish()


@pytest.mark.parametrize("place", ["local", "s3"])
def test_unnamed_files_go_after_the_grace_period(place: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if place == "s3":
        request.getfixturevalue("s3")
    store = open_store(str(tmp_path) if place == "local" else f"s3://test/{tmp_path.name}")
    fill(store)
    assert sweep_files(Ledger(store), 3600).removed == 0
    time.sleep(1.1)  # S3 counts whole seconds
    assert sweep_files(Ledger(store), 0, dry=True).removed == 2
    found = sweep_files(Ledger(store), 0)
    assert (found.files, found.removed, found.size) == (5, 2, 10)
    assert list(store.keys("files/")) == USED


def test_job_refuses_a_folder_of_something_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep.main(["--out", str(tmp_path)]) == 2
    assert "holds no config.yaml" in capsys.readouterr().err


def test_job_says_what_went(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = LocalStore(str(tmp_path))
    fill(store)
    store.put("config.yaml", b"{}")
    for key in STRAY:
        os.utime(tmp_path / key, (0, 0))
    assert sweep.main(["--out", str(tmp_path)]) == 0
    assert "2 of 5 files removed" in capsys.readouterr().out
    assert list(store.keys("files/")) == USED
