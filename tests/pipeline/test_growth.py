"""Eight GPUs that are none: pools grow by what the first rows took, and every GPU has work."""

from __future__ import annotations

import json
import sys
import time
from operator import truediv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import ray
from ray import cloudpickle

from factory.config.settings import FactoryConfig
from factory.ledger.ledger import ASSETS, Ledger
from factory.ledger.schemas import pack
from factory.line.events import EventLog
from factory.line.placement import Pool
from factory.line.progress import Display
from factory.line.run import run_line
from factory.line.settings import LineConfig
from factory.line.stage import Row, Stage
from factory.line.step import Step
from factory.prompts.row import Prompt
from factory.prompts.work import PromptWork
from factory.stages.asset_table import assets_schema
from factory.stages.chain import written_columns
from factory.stages.columns import IMAGE
from factory.stages.commit import Commit
from factory.storage.store import open_store

cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Quick(Stage):
    """Says which GPU it has, after a while."""

    name, grows, pause = "image", True, 0.2
    writes = (IMAGE, pa.field("device", pa.string()))

    def process(self, rows: list[Row]) -> None:
        for row in rows:
            time.sleep(self.pause)
            row["device"] = f"{row.get('device') or ''}{self.name}{ray.get_gpu_ids()} "
            row["image"] = pack(np.zeros((4, 4, 3), np.uint8))


class Slow(Quick):
    name, pause = "video", 0.6


class Keep(Commit):
    grows = False

    def write(self, row: Row):
        schema = assets_schema(written_columns())
        return {name: row.get(name) for name in schema.names} | {"image": None}, schema


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_long_run_grows_by_what_its_first_rows_took(tmp_path: Path) -> None:
    ray.init(num_cpus=16, num_gpus=8, object_store_memory=100 << 20, logging_level="ERROR", log_to_driver=False)
    try:
        config = FactoryConfig(line=LineConfig(address="auto"))
        chain = [
            Step(actor=Quick, pool=Pool(gpus=1.0), arguments={"config": config}),
            Step(actor=Slow, pool=Pool(gpus=1.0), arguments={"config": config}),
            Step(
                actor=Keep, pool=Pool(), arguments={"config": config, "out": str(tmp_path), "run_id": "r"}, seconds=1e-3
            ),
        ]
        store = open_store(str(tmp_path))
        ledger, events = Ledger(store), EventLog(store, "r")
        prompts = [Prompt(prompt_id=f"p{n}", prompt="x", seed=n) for n in range(340)]
        run_line(PromptWork(prompts=prompts, config=config), chain, config.line, ledger, Display(events))
    finally:
        ray.shutdown()
    placed = [one["pools"] for one in map(json.loads, store.get("events.jsonl").splitlines()) if "pools" in one]
    counts = [[int(lines[stage].split(" actors")[0].split()[-1]) for stage in (0, 1)] for lines in placed]
    assert counts[0] == [4, 4]  # nothing is known of either yet
    pace = placed[1][-1]
    assert "measured over 16 rows of this run" in pace
    assert "bottleneck" in pace
    seconds = [float(pace.split(f"{name} ")[1].split(",")[0]) for name in ("image", "video")]
    rates = [min(map(truediv, (count, 8 - count), seconds)) for count in range(1, 8)]
    assert min(map(truediv, counts[1], seconds)) > 0.98 * max(rates)  # of all ways to share eight GPUs
    assert sum(counts[1]) == 8
    assert counts[1][1] > counts[1][0]
    rows = list(ledger.rows(ASSETS))
    assert len(rows) == 340
    assert len({part for row in rows for part in row["device"].split() if part.startswith("video")}) >= counts[1][1]
