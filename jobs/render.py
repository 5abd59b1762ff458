"""Render turntables of 3D assets: `im3d render --assets assets.jsonl --out DIR`.

Exit code: 0 when every turntable is rendered, 1 when some are dead letters, 2 when nothing could run.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from factory.training.render.settings import RenderConfig
from jobs.base import LineJob, start


@dataclass(kw_only=True, slots=True)
class Render(LineJob):
    """Render turntables of meshes as training data.

    Run it again and it renders what is missing, dead letters too."""

    assets: str
    """Table of assets, a local path or s3:// address: .csv, .jsonl or .parquet, or a folder of them, with `path` (GLB,
    glTF, OBJ or PLY), `caption` and, if you like, `id`, `license`, `source`, `split`."""
    out: str
    """Output folder, a local path or s3:// address; made if missing."""
    asset_root: str | None = None
    """Folder that the paths are relative to; the table's own by default."""
    split: str | None = None
    """Only the assets of this split."""
    limit: int | None = None
    """Only the first assets."""
    settings: Annotated[RenderConfig, tyro.conf.arg(name="")] = field(default_factory=RenderConfig)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, report; returns the exit code."""
    return start("render", Render, run, argv)


def run(job: Render) -> int:
    """Render what the output folder lacks; returns the exit code."""
    from factory.ledger.ledger import RENDERS
    from factory.line.one_stage_line import line_config
    from factory.line.output_folder import open_output
    from factory.prompts.assets import read_assets
    from factory.prompts.table_files import table_root
    from factory.training.render.line import RenderWork, rows_per_part, steps
    from factory.training.shards.schema import RENDER_DEAD_LETTERS

    work = RenderWork(assets=read_assets(job.assets, job.limit, job.split, job.storage), config=job.settings)
    root, ids = job.asset_root or table_root(job.assets), work.ids
    rows, identity = rows_per_part(job.settings.size), job.settings.identity()
    with open_output(job.out, job.storage, RENDERS, rows, identity) as folder:
        ledger = folder.ledger
        ledger.requeue(set(ids))
        ledger.add_dead_letters(
            (row for row in work.unusable() if row["turntable_id"] not in ledger), RENDER_DEAD_LETTERS
        )
        chain = steps(job.settings, root, job.out, folder.run_id, job.storage)
        line = line_config(job.settings.pool, job.settings.address, job.runner)
        folder.run(work, chain, line, job.cost, "turntables", "render")
        done = len(ids) - sum(ledger.is_dead(work_id) for work_id in ids)
    print(f"{done} of {len(ids)} turntables rendered, {len(ids) - done} are dead letters: {job.out}/renders")
    return 0 if done == len(ids) else 1


if __name__ == "__main__":
    sys.exit(main())
