"""Row groups one by one, without a line: captions, scores and latents of shards that are not as simple as hoped for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eval.config import ClipConfig
from factory.ledger.reader import DEAD, LedgerReader
from factory.line.cost import CostConfig
from factory.line.output_folder import open_output
from factory.line.settings import LineConfig
from factory.line.stage import Row
from factory.storage.local import LocalStore
from factory.storage.store import StorageConfig
from factory.training.curate.choice import Curation
from factory.training.curate.settings import CurateConfig
from factory.training.curate.stages import CaptionGroup, JudgeGroup
from factory.training.encode import ENCODINGS, EncodeGroup, Encoding, drop_unlisted, requeue_missing_shards
from factory.training.shards.index import Index, read_index
from factory.training.shards.row_group_line import GroupStage, GroupWork, named_groups
from model.captioner import CaptionerConfig

ASSETS = {"box-0": "a red box", "ball-1": "", "box-2": "a box"}


@pytest.fixture
def shards(tmp_path: Path, shards_writer: Any) -> Path:
    """One shard of three row groups: two turntables of box-0; one of box-0 and one of ball-1; ball-1 and box-2."""
    folder = shards_writer(tmp_path / "shards", ASSETS)
    rows = [row for part in sorted((folder / "renders").iterdir()) for row in pq.read_table(part).to_pylist()]
    by_id = {row["turntable_id"]: row for row in rows}
    for part in (folder / "renders").iterdir():
        part.unlink()
    order = ["box-0.0", "box-0.1", "box-0.1", "ball-1.0", "ball-1.1", "box-2.0"]
    table = pa.Table.from_pylist([by_id[name] | {"turntable_id": f"{name}-{k}"} for k, name in enumerate(order)])
    pq.write_table(table, folder / "renders" / "part-000000.parquet", row_group_size=2)
    return folder


def stage_of(kind: type[GroupStage], index: Index, out: Path, config: Any, captions: dict[str, str]) -> GroupStage:
    return kind(config, index.url, str(out), "run", captions, StorageConfig())


def every(stage: GroupStage, index: Index) -> list[Row]:
    work = GroupWork(groups=named_groups(index))
    return [stage.make(row) for row in work.table(range(len(work.ids)), 1).to_pylist()]


def judged(shards: Path, out: Path) -> dict[str, Row]:
    index = read_index(str(shards), None, only_kept=False)
    found: dict[str, Row] = {}
    for result in every(stage_of(JudgeGroup, index, out, (ClipConfig(), 2), dict(index.captions)), index):
        for verdict in result["verdicts"]:
            known = found.setdefault(verdict["asset_id"], {"total": 0.0, "num_views": 0})
            known["total"] += verdict["total"]
            known["num_views"] += verdict["num_views"]
    return found


def test_an_asset_in_several_row_groups_has_all_its_views(shards: Path, tmp_path: Path) -> None:
    found = judged(shards, tmp_path / "out")
    assert {asset: row["num_views"] for asset, row in found.items()} == {"box-0": 6, "ball-1": 4, "box-2": 2}


def test_only_what_the_index_keeps_is_looked_at(shards: Path, tmp_path: Path) -> None:
    index = read_index(str(shards), None, only_kept=False)
    index.chunks = [chunk for chunk in index.chunks if chunk.group == 2]
    results = every(stage_of(JudgeGroup, index, tmp_path / "out", (ClipConfig(), 1), {}), index)
    assert [verdict["asset_id"] for verdict in results[0]["verdicts"]] == ["ball-1", "box-2"]


def test_one_row_that_cannot_be_decoded_costs_its_neighbours_nothing(shards: Path, tmp_path: Path) -> None:
    part = shards / "renders" / "part-000000.parquet"
    rows = pq.read_table(part).to_pylist()
    schema = pq.read_table(part).schema
    rows[4]["frames"][0]["bytes"] = b"no picture"
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), part, row_group_size=2)
    index = read_index(str(shards), None, only_kept=False)
    stage = stage_of(JudgeGroup, index, tmp_path / "out", (ClipConfig(), 1), {})
    results = every(stage, index)
    assert [verdict["asset_id"] for verdict in results[2]["verdicts"]] == ["box-2"]
    assert list(results[2]["problems"]) == ["renders/part-000000.parquet row group 2 row 0"]


def test_a_caption_of_the_table_goes_before_a_made_one(shards: Path, tmp_path: Path, tiny_captioner: Path) -> None:
    part = shards / "renders" / "part-000000.parquet"
    rows = pq.read_table(part).to_pylist()
    rows[0]["caption"] = rows[1]["caption"] = ""
    pq.write_table(pa.Table.from_pylist(rows), part, row_group_size=2)
    index = read_index(str(shards), None, only_kept=False)
    assert index.captions["box-0"] == "a red box"
    config = CaptionerConfig(model=str(tiny_captioner))
    made = [dict(row["captions"]) for row in every(
        stage_of(CaptionGroup, index, tmp_path / "out", config, dict(index.captions)), index
    )]  # fmt: skip
    assert made[0] == {}
    assert list(made[1]) == ["ball-1"]


def test_a_shard_that_is_written_anew_has_another_name(shards: Path) -> None:
    part = shards / "renders" / "part-000000.parquet"
    before = set(named_groups(read_index(str(shards), None)))
    data = part.read_bytes()
    part.write_bytes(data)
    after = set(named_groups(read_index(str(shards), None)))
    assert len(before) == len(after) == 3
    assert not before & after


def test_who_captioned_decides_what_is_judged_anew_and_not_how_many(shards: Path) -> None:
    index = read_index(str(shards), None, only_kept=False)
    places = []
    for who, captions in ((("blip", "20", "False"), {"x": "1"}), (("blip", "20", "False"), {}), (("git",), {})):
        curation = Curation(
            store=LocalStore(str(shards)), index=index, config=CurateConfig(best=1), storage=StorageConfig(),
            line=LineConfig(), prices=CostConfig(), captioned_by=who,
        )  # fmt: skip
        curation.captions |= captions
        places.append(curation._verdicts("judge"))
    assert places[0] == places[1] != places[2]


def test_latents_of_every_row_group_and_again_where_one_is_gone(shards: Path, tmp_path: Path, tiny_pocket) -> None:
    index = read_index(str(shards), None)
    groups = named_groups(index)
    stage = stage_of(
        EncodeGroup, index, tmp_path / "latents", Encoding(weights=str(tiny_pocket), variants=2, seed=0), {}
    )
    with open_output(str(tmp_path / "latents"), StorageConfig(), ENCODINGS) as output:

        def encode() -> None:
            requeue_missing_shards(output, groups)
            work, ledger = GroupWork(groups=groups), output.ledger
            missing = ledger.missing(work.ids)
            if len(missing):
                stage(work.table(missing, 1))
                ledger.publish()
            drop_unlisted(ledger, groups)

        encode()
        names = [f"part-000000-000{k}.parquet" for k in range(3)]
        folder = tmp_path / "latents" / "renders"
        assert sorted(path.name for path in folder.iterdir()) == names
        whole = {name: pq.read_table(folder / name) for name in names}
        assert [table.num_rows for table in whole.values()] == [4, 4, 4]
        assert np.unique([row["asset_id"] for row in whole[names[1]].to_pylist()]).tolist() == ["ball-1", "box-0"]
        untouched = (folder / names[0]).stat().st_mtime_ns
        (folder / names[1]).unlink()
        (folder / "part-000009-0000.parquet").write_bytes(b"of renders that are gone")
        encode()
        assert sorted(path.name for path in folder.iterdir()) == names
        assert pq.read_table(folder / names[1]).equals(whole[names[1]])
        assert (folder / names[0]).stat().st_mtime_ns == untouched
        assert not list(LedgerReader(output.store, ENCODINGS).rows(DEAD))
