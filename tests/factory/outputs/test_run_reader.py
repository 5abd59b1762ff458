"""A run's folder as columns: parts and commits alike, each prompt once, what is missing as nan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from factory.config.settings import FactoryConfig, FilesConfig, run_settings
from factory.ledger import run_identity
from factory.ledger.commit_protocol import commit, commit_block
from factory.ledger.ledger import DEAD, Ledger
from factory.ledger.schemas import DEAD_LETTERS
from factory.outputs.gallery import write_gallery
from factory.outputs.run_reader import read_run
from factory.stages.asset_table import assets_schema
from factory.stages.chain import written_columns
from factory.storage.interface import StorageConfig
from factory.storage.local import LocalStore
from recon.config import OrbitConfig


def put(store: LocalStore, name: str, **values: Any) -> None:
    schema = assets_schema(written_columns(), [column for column in values if column.startswith("clip_")])
    row = dict.fromkeys(schema.names) | {
        "prompt_id": name,
        "prompt": f"a {name}",
        "ply": {"path": f"files/{name}/a.ply"},
    }
    assert commit(store, row | values, schema)


def test_published_and_committed_rows_of_two_judges(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    put(store, "one", clip_text_renders_small=20.0, seconds_image=1.0, seconds_video=2.0, seed=7)
    letter = dict.fromkeys(DEAD_LETTERS.names) | {"prompt_id": "bad", "prompt": "x", "error_stage": "video"}
    commit(store, letter, DEAD_LETTERS)
    Ledger(store).publish()
    put(store, "two", clip_text_renders_big=30.0)
    run = read_run(str(tmp_path), StorageConfig())
    assert sorted(run.prompt_ids) == ["one", "two"]
    rows = [run.prompt_ids.index(name) for name in ("one", "two")]
    assert [run.folders[row] for row in rows] == ["files/one", "files/two"]
    np.testing.assert_array_equal(run.scores["clip_text_renders_small"][rows], [20, np.nan])
    np.testing.assert_array_equal(run.scores["clip_text_renders_big"][rows], [np.nan, 30])
    np.testing.assert_array_equal(run.numbers["seconds"][rows], [3, np.nan])
    np.testing.assert_array_equal(run.numbers["seed"][rows], [7, np.nan])
    assert [(one.prompt_id, one.stage, one.kind) for one in run.dead] == [("bad", "video", "")]
    assert [run.prompt_ids[row] for row in run.ranked("clip_text_renders_big")] == ["two", "one"]


def test_reading_writes_nothing(tmp_path: Path) -> None:
    put(LocalStore(str(tmp_path)), "one")
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert len(read_run(str(tmp_path), StorageConfig())) == 1
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == before


def test_a_row_of_a_part_counts_more_than_a_late_commit(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    put(store, "one", seed=1)
    Ledger(store).publish()
    put(store, "one", seed=2)
    run = read_run(str(tmp_path), StorageConfig())
    assert run.prompt_ids == ["one"]
    assert run.numbers["seed"].tolist() == [1]


def test_a_dead_letter_that_is_not_published_yet_is_no_asset(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    letter = dict.fromkeys(DEAD_LETTERS.names) | {"prompt_id": "bad", "prompt": "x", "error_stage": "video"}
    commit(store, letter, DEAD_LETTERS)
    put(store, "one")
    run = read_run(str(tmp_path), StorageConfig())
    assert (run.prompt_ids, [one.prompt_id for one in run.dead]) == (["one"], ["bad"])


def test_records_of_many_rows(tmp_path: Path) -> None:
    store, schema = LocalStore(str(tmp_path)), assets_schema(written_columns(), ["clip_text_renders_small"])
    names = [f"p{number}" for number in range(5)]
    rows = [dict.fromkeys(schema.names) | {"prompt_id": name, "prompt": name, "ply": {"path": "f/a"}} for name in names]
    commit_block(store, rows, schema)
    assert sorted(read_run(str(tmp_path), StorageConfig()).prompt_ids) == names


def test_the_way_from_page_to_files(tmp_path: Path) -> None:
    for name in ("a b", "c"):
        put(LocalStore(str(tmp_path / name)), "one")
    assert read_run(str(tmp_path / "c"), StorageConfig()).base == ""
    assert read_run(str(tmp_path / "a b"), StorageConfig(), page=str(tmp_path / "c")).base == "../a%20b/"
    assert read_run(str(tmp_path / "c"), StorageConfig(), page="s3://bucket/run").base is None


def test_settings_are_those_of_the_run(tmp_path: Path) -> None:
    config = FactoryConfig(orbit=OrbitConfig(num_views=8), files=FilesConfig(turntable_frames=24))
    store = LocalStore(str(tmp_path))
    put(store, "one")
    run_identity.write(store, run_settings(config), None)
    run = read_run(str(tmp_path), StorageConfig())
    assert (run.num_views, run.settings["fit.iterations"]) == (8, config.fit.iterations)
    store.put("config.yaml", b"{")
    with pytest.raises(ValueError, match="no YAML"):
        read_run(str(tmp_path), StorageConfig())


TRACE = 'Traceback (most recent call last):\n  File "/job/my_stages/hull.py", line 41, in process\n    1 / 0\n'


def test_dead_letters_of_versions_with_and_without_traces(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    old = pa.schema([field for field in DEAD_LETTERS if field.name != "error_trace"])
    known = {"prompt": "x", "error_stage": "video", "error_trace": TRACE}
    for publish, letters in enumerate(([("old", old)], [("older", old), ("new", DEAD_LETTERS)])):
        for name, schema in letters:
            row = dict.fromkeys(DEAD_LETTERS.names) | known | {"prompt_id": name}
            commit(store, {column: row[column] for column in schema.names}, schema)
        Ledger(store).publish()
        run = read_run(str(tmp_path), StorageConfig())
        assert len(run.dead) == 1 + 2 * publish
    assert {one.prompt_id: one.place for one in run.dead} == {"old": "", "older": "", "new": "my_stages/hull.py:41"}
    write_gallery(store, Ledger(store), FactoryConfig())
    assert "<td>my_stages/hull.py:41</td>" in (tmp_path / "index.html").read_text()
    ledger = Ledger(store)
    assert ledger.requeue({"older", "new"}) == 2
    assert [row["prompt_id"] for row in ledger.rows(DEAD, ["prompt_id", "error_trace"])] == ["old"]
