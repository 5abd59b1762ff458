"""Run the paper's ablations on real assets: `im3d ablate --assets assets.jsonl --out DIR`.

Exit code: 0 when every fit is done, 1 when some are dead letters, 2 when nothing could run.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from factory.evaluation.ablation.settings import AblationConfig
from jobs.base import LineJob, start
from recon.user_error import UserError

if TYPE_CHECKING:
    from factory.evaluation.ablation.work import FitWork
    from factory.ledger.ledger import Ledger

TABLE_FORMS = (".csv", ".jsonl", ".parquet")


@dataclass(kw_only=True, slots=True)
class Ablate(LineJob):
    """Fit assets by the full method and its variants (Tables 2 and 3). Run it again and it fits what is missing."""

    assets: str
    """Table of assets as for `im3d render`, or a folder with assets.jsonl; local or s3://."""
    out: str
    """Output folder, a local path or s3:// address; made if missing."""
    split: str | None = None
    """Only the assets of this split."""
    limit: int | None = None
    """At most this many assets, >= 1, at uniform steps through the table."""
    weights: str | None = None
    """Folder, local or s3://, that `im3d weights pull` filled: networks of its catalogue are taken from it."""
    settings: Annotated[AblationConfig, tyro.conf.arg(name="")] = field(default_factory=AblationConfig)

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise UserError(f"limit is {self.limit}; it must be at least 1")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, report; returns the exit code."""
    return start("ablate", Ablate, run, argv)


def run(job: Ablate) -> int:
    """Fit what the output folder lacks, then write tables and sheet; returns the exit code."""
    from factory.evaluation.ablation.stage import steps
    from factory.evaluation.ablation.work import FITS, FitWork
    from factory.line.one_stage_line import line_config
    from factory.line.output_folder import open_output
    from factory.prompts.assets import read_assets
    from factory.weights.folder import resolved_judge, resolved_video

    table = job.assets if job.assets.endswith(TABLE_FORMS) else f"{job.assets.rstrip('/')}/assets.jsonl"
    assets = read_assets(table, split=job.split, storage=job.storage)
    count = min(job.limit or len(assets), len(assets))
    chosen = [assets[place * len(assets) // count] for place in range(count)]
    work = FitWork(assets=chosen, variants=job.settings.chosen())
    with open_output(job.out, job.storage, FITS, settings=job.settings.identity()) as folder:
        folder.ledger.requeue()
        print(f"{count} assets, variants {', '.join(work.variants)}")
        placed = replace(
            job.settings,
            video=resolved_video(job.weights, job.settings.video),
            clip=resolved_judge(job.weights, job.settings.clip),
        )
        chain = steps(placed, table.rpartition("/")[0] or ".", job.out, folder.run_id, job.storage)
        line = line_config(job.settings.pool, job.settings.address, job.runner)
        folder.run(work, chain, line, job.cost, "fits")
        return _report(job, work, folder.ledger)


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
