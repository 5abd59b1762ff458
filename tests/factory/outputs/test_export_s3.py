"""Exports from a run on S3 to S3: files, rows and shards lie where the line says."""

from __future__ import annotations

import io
import tarfile
from typing import Any

import pytest
import torch

from factory.ledger.commit_protocol import commit
from factory.ledger.finished_assets import assets_of_run
from factory.ledger.ledger import DEAD, Ledger, file_entry
from factory.outputs.export import Export, ExportWork, gather_shards, results_of
from factory.outputs.export_settings import ExportConfig
from factory.stages.asset_ply import gaussians_of, ply_bytes
from factory.stages.asset_table import assets_schema
from factory.stages.chain import written_columns
from factory.storage.read_only import open_read_only
from factory.storage.store import open_store
from recon.gaussians import init_ball

RUN = "s3://test/export-run"


@pytest.fixture
def run(s3: str) -> str:
    store, schema = open_store(RUN), assets_schema(written_columns())
    for number, name in enumerate(("a", "b", "empty")):
        ply = ply_bytes(init_ball(40, opacity=0.9, generator=torch.Generator().manual_seed(number)))
        ply = b"" if name == "empty" else ply
        row: dict[str, Any] = dict.fromkeys(schema.names) | {"prompt_id": name, "prompt": name, "elevation": 0.1}
        store.put(f"files/{name}/asset.ply", ply)
        commit(store, row | {"ply": file_entry(f"files/{name}/asset.ply", ply)}, schema)
    return RUN


def test_a_run_on_s3_becomes_shards_on_s3(run: str) -> None:
    config = ExportConfig(format="webdataset", size=16, num_views=1)
    out = "s3://test/exported/webdataset"
    work = ExportWork(assets=assets_of_run(open_read_only(run)))
    assert work.ids == ["a", "b", "empty"]
    outcomes = Export(config, out, "r")(work.table([0, 1, 2], 1)).to_pylist()
    assert [row["status"] for row in outcomes] == ["done", "done", "failed"]
    store = open_store(out)
    ledger = Ledger(store, results_of(config))
    ledger.publish()
    assert [row["error_message"] for row in ledger.rows(DEAD)] == [
        "files/empty/asset.ply is no PLY file: it does not begin with a PLY header"
    ]
    assert gather_shards(store) == gather_shards(store) == ["shards/shard-000000.tar"]
    with tarfile.open(fileobj=io.BytesIO(store.get("shards/shard-000000.tar"))) as archive:
        names = archive.getnames()
        ply = archive.extractfile("b.ply").read()  # type: ignore[union-attr]
    assert {"a.json", "a.000.rgba.png", "b.000.mask.png", "b.depths.npz"} < set(names)
    assert len(gaussians_of(ply)) == 40
    assert not list(store.keys("samples/"))
