"""Run `im3d evaluate` and `im3d report` on very many assets with a judge that computes nothing: `main`.

    python -m benchmarks.many_assets [--limit 100000] [--run DIR]

Writes the table of a run of so many assets, then calls both jobs as a user does, but for the stage that judges, which
answers with numbers at once. What is left is the driver's work: slices, Ray, the ledger, statistics, the page. With
--run the folder is kept, and the command goes on where it was stopped.

Prints one line of JSON: seconds of either job, ``evaluate_mb`` and ``report_mb`` (peak growth of the driver's resident
memory), ``page_mb`` (all that the page consists of).
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa

from benchmarks.evaluate import ROWS_PER_PART, put_table
from factory.evaluation.stage import Evaluate as Judge
from factory.ledger.commit_protocol import commit_block
from factory.ledger.schemas import chosen
from factory.line.placement import Pool
from factory.line.stage import Row
from factory.line.step import Step
from jobs import evaluate, report

LOOKS = 24
"""Folders of files that all assets share."""


@dataclass(kw_only=True, slots=True)
class Options:
    """How many assets."""

    limit: int = 100_000
    """Assets."""
    run: Path | None = None
    """Where the run is kept; a folder that is removed by default."""
    batch: int = 256
    """Rows at a time in the stage."""


class NullJudge(Judge):
    """Scores by the asset's place, at no cost; a batch is tried and committed as one, where the real one does rows."""

    together = 1 << 16

    def __call__(self, table: pa.Table) -> pa.Table:
        self.scored: list[Row] = []
        outcomes = super().__call__(table)
        commit_block(self.store, self.scored, self.schema)
        return outcomes

    def _commit(self, row: Row) -> None:
        if row["error_stage"]:
            raise RuntimeError(row["error_message"])
        self.scored.append(chosen(row, self.schema))

    def load(self) -> None:
        """The columns of one model."""
        from factory.evaluation.line import scores_schema

        self.schema = scores_schema([config.model for config in self.clip], self.measures)

    def make(self, row: Row) -> Row:
        """A score for every column."""
        random = np.random.default_rng(int(row["prompt_id"].rpartition("-")[2]))
        found: Row = {}
        for name in self.schema.names:
            if name.startswith("clip_") and not name.endswith("_views"):
                found[name] = float(random.normal(30, 8))
                found[f"{name}_views"] = random.normal(30, 8, self.config.num_views).tolist()
            elif name.startswith("rank_"):
                found[name] = int(random.geometric(0.05)) - 1
        return found


def null_step(pool: Pool, **arguments: Any) -> Step:
    """In place of `factory.evaluation.stage.step`."""
    return Step(actor=NullJudge, pool=pool, arguments=arguments)


def write_run(folder: Path, count: int) -> None:
    """The table of a run's assets, half of them the second seed of a prompt, and pictures of LOOKS of them."""
    from PIL import Image

    from factory.ledger.ledger import ASSETS
    from factory.stages.asset_table import assets_schema
    from factory.stages.chain import written_columns
    from factory.storage.store import open_store

    store, schema, random = open_store(str(folder)), assets_schema(written_columns()), np.random.default_rng(0)
    for look in range(LOOKS):
        place = folder / "files" / f"look-{look}"
        (place / "views").mkdir(parents=True, exist_ok=True)
        for name in ("image.png", *(f"views/{view:02d}.png" for view in range(0, 16, 4))):
            Image.new("RGB", (128, 128), f"hsl({15 * look}, 70%, 60%)").save(place / name)
    for number, start in enumerate(range(0, count, ROWS_PER_PART)):
        rows = [_asset(k, schema.names, random) for k in range(start, min(start + ROWS_PER_PART, count))]
        put_table(store, f"{ASSETS}/part-{number:06d}.parquet", rows, schema)


def _asset(number: int, names: list[str], random: np.random.Generator) -> Row:
    known = {"prompt_id": f"asset-{number:07d}", "prompt": f"a thing of kind {number // 2}", "seed": number % 2}
    files = {"ply": "asset.ply", "generated": "generated.mp4", "image": "image.png"}
    paths = {name: {"path": f"files/look-{number % LOOKS}/{end}"} for name, end in files.items()}
    spent = {"seconds_reconstruct": float(random.gamma(9, 5)), "forwards_video": 2, "elevation": 0.3}
    return dict.fromkeys(names) | known | paths | spent


def measured(work: Callable[[], int]) -> tuple[float, float]:
    """Seconds and MiB of the driver that a job takes.

    Raises:
        RuntimeError: when its exit code is not 0.
    """
    import torch

    from recon.memory import PeakMemory

    started = time.perf_counter()
    with PeakMemory(torch.device("cpu")) as memory:
        code = work()
    if code:
        raise RuntimeError(f"the job ended with exit code {code}")
    return round(time.perf_counter() - started, 1), round((memory.bytes or 0) / 2**20, 1)


def main(options: Options) -> dict[str, Any]:
    """Run both jobs and print the figures; returns the JSON's content."""
    with contextlib.ExitStack() as stack:
        folder = options.run or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if not (folder / "assets").is_dir():
            write_run(folder, options.limit)
        job = evaluate.Evaluate(run=str(folder), pool=Pool(batch=options.batch))
        with mock.patch("factory.evaluation.stage.step", null_step):
            judged = measured(lambda: evaluate.run(job))
        reported = measured(lambda: report.run(report.Report(run=str(folder), out=str(folder / "page"))))
        page = sum(file.stat().st_size for file in [folder / "page/report.html", *(folder / "page/report").iterdir()])
    found = {
        "assets": options.limit,
        "evaluate_seconds": judged[0],
        "evaluate_mb": judged[1],
        "report_seconds": reported[0],
        "report_mb": reported[1],
        "page_mb": round(page / 2**20, 1),
    }
    print(json.dumps(found))
    return found


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Options, description=__doc__))
