"""Real assets in, the paper's ablations out: `im3d ablate --assets assets.jsonl --out DIR`.

Exit code: 0 when every fit is done, 1 when some are dead letters, 2 when nothing could run.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from factory.evaluation.ablation.settings import AblationConfig
from jobs.settings import guarded, settle

if TYPE_CHECKING:
    from factory.evaluation.ablation.work import FitWork
    from factory.ledger.ledger import Ledger

TABLE_FORMS = (".csv", ".jsonl", ".parquet")


@dataclass(kw_only=True, slots=True)
class Ablate:
    """Fit assets by the full method and its variants (Tables 2 and 3). Run it again and it fits what is missing."""

    assets: str
    """Table of assets as for `im3d render`, or a folder with assets.jsonl; local or s3://."""
    out: str
    """Output folder, a local path or s3:// address; made if missing."""
    split: str | None = None
    """Only the assets of this split."""
    limit: int | None = None
    """At most this many assets, >= 1, at uniform steps through the table."""
    settings: Annotated[AblationConfig, tyro.conf.arg(name="")] = field(default_factory=AblationConfig)

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit is {self.limit}; it must be at least 1")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, report; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: run(tyro.cli(Ablate, args=arguments, prog="im3d ablate")))


def run(job: Ablate) -> int:
    """Fit what the output folder lacks, then write tables and sheet; returns the exit code."""
    from factory.evaluation.ablation.work import FITS, FitWork
    from factory.ledger.lease import Lease
    from factory.ledger.ledger import DEAD, Ledger
    from factory.prompts.assets import read_assets
    from factory.storage.store import open_store

    table = job.assets if job.assets.endswith(TABLE_FORMS) else f"{job.assets.rstrip('/')}/assets.jsonl"
    assets = read_assets(table, split=job.split)
    count = min(job.limit or len(assets), len(assets))
    chosen = [assets[place * len(assets) // count] for place in range(count)]
    work, store = FitWork(assets=chosen, variants=job.settings.chosen()), open_store(job.out)
    with Lease(store):
        store.sweep()
        settle(store, job.settings.identity())
        ledger = Ledger(store, FITS)
        ledger.revive({row["fit_id"] for row in ledger.rows(DEAD, ["fit_id"])})
        _fit(job, work, ledger, table.rpartition("/")[0] or ".")
        return _report(job, work, ledger)


def _fit(job: Ablate, work: FitWork, ledger: Ledger, root: str) -> None:
    from factory.evaluation.ablation.stage import steps
    from factory.line.one_stage_line import line_config
    from factory.line.progress import Display
    from factory.line.run import run_line

    ids = work.ids
    missing = sum(work_id not in ledger for work_id in ids)
    if not missing:
        ledger.publish()
        return
    print(f"{missing} of {len(ids)} fits to make: {len(work.assets)} assets, variants {', '.join(work.variants)}")
    chain = steps(job.settings, root, job.out, uuid.uuid4().hex[:12])
    run_line(work, chain, line_config(job.settings.pool, job.settings.address), ledger, Display())


def _report(job: Ablate, work: FitWork, ledger: Ledger) -> int:
    from factory.evaluation.ablation.report import write_report
    from factory.evaluation.ablation.work import FITS
    from factory.ledger.ledger import DEAD

    ids = set(work.ids)
    failed: list[dict[str, Any]] = [row for row in ledger.rows(DEAD) if row["fit_id"] in ids]
    print("\n".join(f"  {row['fit_id']}: {row['error_message']}" for row in failed[:20]), end="\n" * bool(failed))
    rows = [row for row in ledger.rows(FITS) if row["fit_id"] in ids]
    print(write_report(ledger.store, rows, job.settings, work.variants))
    print(f"{len(rows)} of {len(ids)} fits, {len(failed)} dead letters: {job.out}/ablation.html")
    return 0 if len(rows) == len(ids) else 1


if __name__ == "__main__":
    sys.exit(main())
