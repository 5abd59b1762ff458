"""A finished run in, a page about it out: `im3d report --run DIR`, then open DIR/report.html.

Exit code: 0 when the page is written, 2 when there is nothing to report.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import tyro

from jobs.settings import guarded

if TYPE_CHECKING:
    from factory.storage.store import Store


@dataclass(kw_only=True, slots=True)
class Report:
    """Write RUN/report.html, which opens from disk: scores, sheets, failures, cost, and every asset to search."""

    run: str
    """Output folder of `im3d generate`, local or s3://; it may still be going."""
    against: str | None = None
    """Another run to compare with, prompt by prompt."""
    label: str | None = None
    """What the run is called; the folder's name by default."""
    against_label: str | None = None
    """What the other run is called."""
    by: str | None = None
    """Score that ranks assets, a column such as clip_text_renders_pocket; a text score of the re-renders by default."""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, write, say where; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: run(tyro.cli(Report, args=arguments, prog="im3d report")))


def run(job: Report) -> int:
    """Write the page; returns the exit code. Raises ValueError for the user."""
    from datetime import UTC, datetime

    from eval.page import web_file
    from eval.report import WEB_FILES, report_page
    from eval.report_data import data_files
    from factory.outputs.run_reader import read_run
    from factory.storage.store import open_store

    own, other = read_run(job.run), read_run(job.against, page=job.run) if job.against else None
    for one, label in ((own, job.label), (other, job.against_label)):
        if one and label:
            one.label = label
    by, store = own.score(job.by), open_store(job.run)
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    written = {f"report/{name}" for name in WEB_FILES}
    for name in WEB_FILES:
        store.put(f"report/{name}", web_file(name).encode())
    for name, text in data_files(own, by):
        store.put(f"report/{name}", text.encode())
        written.add(f"report/{name}")
    store.put("report.html", report_page(own, other, by, made).encode())
    _sweep(store, written)
    print(f"{len(own)} assets, {len(own.dead)} dead letters: {job.run.rstrip('/')}/report.html")
    return 0


def _sweep(store: Store, written: set[str]) -> None:
    """Remove what an earlier, longer report left."""
    for key in list(store.keys("report/")):
        if key not in written:
            store.delete(key)


if __name__ == "__main__":
    sys.exit(main())
