"""3D assets in, turntable renders out: `im3d render --assets assets.jsonl --out DIR`.

Exit code: 0 when every turntable is rendered, 1 when some are dead letters, 2 when nothing could run.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from factory.storage.store import StorageConfig
from factory.training.render.settings import RenderConfig
from jobs.settings import guarded, settle


@dataclass(kw_only=True, slots=True)
class Render:
    """Render turntables of meshes as training data.

    Run it again and it renders what is missing, dead letters too."""

    assets: str
    """Table of assets, a local path or s3:// address: .csv, .jsonl or .parquet with `path` (GLB, glTF or OBJ),
    `caption` and, if you like, `id`, `license`, `source`, `split`."""
    out: str
    """Output folder, a local path or s3:// address; made if missing."""
    asset_root: str | None = None
    """Folder that the paths are relative to; the table's own by default."""
    split: str | None = None
    """Only the assets of this split."""
    limit: int | None = None
    """Only the first assets."""
    settings: Annotated[RenderConfig, tyro.conf.arg(name="")] = field(default_factory=RenderConfig)
    storage: StorageConfig = field(default_factory=StorageConfig)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, report; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: run(tyro.cli(Render, args=arguments, prog="im3d render")))


def run(job: Render) -> int:
    """Render what the output folder lacks; returns the exit code."""
    from factory.ledger.lease import Lease
    from factory.ledger.ledger import DEAD, RENDERS, Ledger
    from factory.ledger.schemas import RENDER_DEAD_LETTERS
    from factory.line.one_stage_line import line_config
    from factory.line.progress import Display
    from factory.line.run import run_line
    from factory.prompts.assets import read_assets
    from factory.storage.store import open_store
    from factory.training.render.line import RenderWork, rows_per_part, steps

    work = RenderWork(assets=read_assets(job.assets, job.limit, job.split, job.storage), config=job.settings)
    root = job.asset_root or job.assets.rpartition("/")[0] or "."
    store = open_store(job.out, job.storage)
    with Lease(store) as lease:
        store.sweep()
        settle(store, job.settings.identity())
        ledger = Ledger(store, RENDERS, rows_per_part(job.settings.size), lease)
        ledger.publish()
        ids = work.ids
        ledger.revive({row["turntable_id"] for row in ledger.rows(DEAD, ["turntable_id"])} & set(ids))
        ledger.bury((row for row in work.unusable() if row["turntable_id"] not in ledger), RENDER_DEAD_LETTERS)
        missing = len(ledger.missing(ids))
        if missing:
            print(f"{missing} of {len(ids)} turntables to render")
            chain = steps(job.settings, root, job.out, uuid.uuid4().hex[:12], job.storage)
            run_line(work, chain, line_config(job.settings.pool, job.settings.address), ledger, Display())
        else:
            ledger.publish()
            print(f"Nothing to do: all {len(ids)} turntables of {job.assets} are settled in {job.out}")
        done = len(ids) - sum(ledger.is_dead(work_id) for work_id in ids)
        print(f"{done} of {len(ids)} turntables rendered, {len(ids) - done} are dead letters: {job.out}/renders")
        return 0 if done == len(ids) else 1


if __name__ == "__main__":
    sys.exit(main())
