"""Write a page about a finished run: `im3d report --run DIR`, then open DIR-report/report.html.

Exit code: 0 when the page is written, 2 when there is nothing to report.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs.base import Job, start
from recon.user_error import UserError

if TYPE_CHECKING:
    from factory.storage.interface import Store

FOLDER = "report"
"""What `report.html` loads lies there, and the lease of who writes it."""


@dataclass(kw_only=True, slots=True)
class Report(Job):
    """Write RUN-report/report.html, which opens from disk: scores, sheets, failures, cost, all assets to search."""

    run: str
    """Output folder of `im3d generate`, local or s3://; it may still be going."""
    against: str | None = None
    """Another run to compare with, prompt by prompt."""
    label: str | None = None
    """What the run is called; the folder's name by default."""
    against_label: str | None = None
    """What the other run is called."""
    out: str | None = None
    """Folder of the page, local or s3://; RUN-report, beside the run, by default. What `im3d evaluate --out` wrote
    there counts too."""
    by: str | None = None
    """Score that ranks assets, a column such as clip_text_renders_pocket; a text score of the re-renders by default."""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, write, say where; returns the exit code."""
    return start("report", Report, run, argv)


def run(job: Report) -> int:
    """Write the page; returns the exit code. Raises UserError for the user."""
    from datetime import UTC, datetime

    from eval.page import web_file
    from eval.report import WEB_FILES, report_page
    from eval.report_data import data_files
    from factory.ledger.lease import Lease
    from factory.outputs.run_reader import read_run
    from factory.storage.store import open_store

    out = job.out.rstrip("/") if job.out else beside(job.run)
    own = read_run(job.run, job.storage, page=out, judged=job.out)
    other = read_run(job.against, job.storage, page=out) if job.against else None
    for one, label in ((own, job.label), (other, job.against_label)):
        if one and label:
            one.label = label
    by, store = own.score(job.by), open_store(out, job.storage)
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    with Lease(open_store(f"{out}/{FOLDER}", job.storage)):
        written = {f"{FOLDER}/{name}" for name in WEB_FILES}
        for name in WEB_FILES:
            store.put(f"{FOLDER}/{name}", web_file(name).encode())
        for name, text in data_files(own, by):
            store.put(f"{FOLDER}/{name}", text.encode())
            written.add(f"{FOLDER}/{name}")
        store.put("report.html", report_page(own, other, by, made).encode())
        _sweep(store, written)
    print(f"{len(own)} assets, {len(own.dead)} dead letters: {out}/report.html")
    return 0


def beside(run: str) -> str:
    """The folder RUN-report; raises UserError for a bucket as a whole, which has nothing beside it."""
    if "://" not in run:
        return f"{os.path.abspath(run)}-report"
    scheme, _, path = run.partition("://")
    if "/" not in path.strip("/"):
        raise UserError(f"{run} is a whole bucket, so that the page cannot lie beside it; give a folder as --out")
    return f"{scheme}://{path.rstrip('/')}-report"


def _sweep(store: Store, written: set[str]) -> None:
    """Remove what an earlier, longer report left."""
    for key in list(store.keys(f"{FOLDER}/")):
        if key not in written and not key.startswith(f"{FOLDER}/lease/"):
            store.delete(key)


if __name__ == "__main__":
    sys.exit(main())
