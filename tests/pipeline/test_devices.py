"""What actors with and without a share of a GPU see of the GPUs of their machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pyarrow as pa
import pytest
import ray
from ray import cloudpickle

from factory.config.settings import FactoryConfig
from factory.ledger.ledger import ASSETS, Ledger
from factory.line.placement import Pool
from factory.line.run import run_line
from factory.line.settings import LineConfig
from factory.line.stage import Row, Stage
from factory.line.step import Step
from factory.prompts.row import Prompt
from factory.prompts.work import PromptWork
from factory.stages.asset_table import assets_schema
from factory.stages.chain import written_columns
from factory.stages.commit import Commit
from factory.storage.store import open_store

cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Look(Stage):
    """Notes what its process sees."""

    name, writes = "image", (pa.field("device", pa.string()),)

    def process(self, rows: list[Row]) -> None:
        for row in rows:
            seen = os.environ.get("CUDA_VISIBLE_DEVICES", "everything")
            row["device"] = f"{row.get('device') or ''}{self.name}: {seen!r} {self.device()}; "


class LookAgain(Look):
    name = "video"


class Keep(Commit):
    def write(self, row: Row):
        schema = assets_schema(written_columns())
        return {name: row.get(name) for name in schema.names} | {"image": None}, schema


def test_gpus_are_seen_by_stages_that_reserve_a_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    config, out = FactoryConfig(line=LineConfig(address="local")), str(tmp_path)
    chain = [
        Step(actor=Look, pool=Pool(cpus=0.1), arguments={"config": config}),
        Step(actor=LookAgain, pool=Pool(cpus=0.1, gpus=0.5), arguments={"config": config}),
        Step(actor=Keep, pool=Pool(cpus=0.1), arguments={"config": config, "out": out, "run_id": "r"}),
    ]
    ledger = Ledger(open_store(out))
    work = PromptWork(prompts=[Prompt(prompt_id="p", prompt="a cup", seed=0)], config=config)
    ray.init(num_cpus=8, num_gpus=2, include_dashboard=False, log_to_driver=False)
    try:
        run_line(work, chain, config.line, ledger)
    finally:
        ray.shutdown()
    [row] = ledger.rows(ASSETS, ["device"])
    assert row["device"] in {f"image: '' cpu; video: '{gpu}' cuda; " for gpu in (0, 1)}
