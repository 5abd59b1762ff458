"""Open an output folder for a job that writes into it, and run a line into it: `open_output`.

    with open_output(job.out, job.storage, results=RENDERS, settings=config.identity()) as folder:
        folder.ledger.requeue()  # dead letters run again
        folder.run(work, steps(config, folder.store.root, folder.run_id), line, cost, "turntables", "render")

The folder is leased from the first line to the last. What was made with other settings is refused, what an
interrupted writer left half-written is removed, and what was committed is published. Every run leaves its events in
`events.jsonl` and its figures in `reports/`, when it is stopped too.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from factory.ledger.folder_format import check_format, write_format
from factory.ledger.lease import Lease
from factory.ledger.ledger import ASSETS, ROWS_PER_PART, Ledger
from factory.line.cost import CostConfig
from factory.line.events import EventLog
from factory.storage.credentials import scrub
from factory.storage.interface import StorageConfig, Store
from factory.storage.store import open_store, read_json
from recon.user_error import UserError

if TYPE_CHECKING:
    from factory.line.placement import Pool
    from factory.line.settings import LineConfig
    from factory.line.step import Step
    from factory.line.tally import Tally
    from factory.line.work import Work

IDENTITY = "settings.json"
"""What the files of a folder depend on, where it is no output of `im3d generate`."""


@dataclass(kw_only=True, slots=True)
class OutputFolder:
    """An output folder while one job holds it.

    Attributes:
        lease: held until the context ends.
        run_id: of this job, in its rows, events and reports.
    """

    store: Store
    lease: Lease
    ledger: Ledger
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    events: EventLog = field(init=False)

    def __post_init__(self) -> None:
        self.events = EventLog(self.store, self.run_id, lambda: not self.lease.lost)

    def run(
        self, work: Work, chain: Sequence[Step], line: LineConfig, prices: CostConfig, rows: str, verb: str = "make",
        fingerprint: str = "",
    ) -> Tally | None:  # fmt: skip
        """Do every row of work that the ledger does not hold yet; None where it holds all.

        Args:
            prices: for the cost so far.
            rows: what they are called, as "turntables". verb: what is done to them.
            fingerprint: of the settings, for the report.

        Raises:
            TooManyFailures: when `line.max_failed_share` is passed; what is done stays done.
        """
        from factory.line.progress import Display

        ids = work.ids
        missing = len(self.ledger.missing(ids))
        if not missing:
            self.ledger.publish()
            print(f"Nothing to do: all {len(ids)} {rows} are settled in {self.store.root}")
            return None
        print(f"{missing} of {len(ids)} {rows} to {verb}")
        pools = {step.actor.name: step.pool for step in chain}
        display = Display(self.events, prices, pools)
        try:
            return runner_of(line)(work, chain, line, self.ledger, display)
        finally:
            if display.tally and not self.lease.lost:
                self._report(display, pools, prices, fingerprint)

    def _report(self, display: Any, pools: Mapping[str, Pool], prices: CostConfig, fingerprint: str) -> None:
        """Show and keep the figures of a run. A folder that cannot be written now hides no other error."""
        from factory.line.run_report import report_table, run_report, save_report

        report = run_report(self.run_id, display.tally, pools, prices, fingerprint)
        display.console.print(report_table(report))
        try:
            save_report(self.store, report)
        except OSError as error:
            logging.getLogger("factory").warning("the run's report could not be written: %s", scrub(str(error)))


def runner_of(line: LineConfig) -> Callable[..., Tally]:
    """`run_line`, or `run_inprocess` where the settings say so; only the former imports Ray."""
    if line.runner == "inprocess":
        from factory.line.inprocess import run_inprocess

        return run_inprocess
    from factory.line.run import run_line

    return run_line


@contextmanager
def open_output(
    url: str,
    storage: StorageConfig,
    results: str = ASSETS,
    rows_per_part: int = ROWS_PER_PART,
    settings: Mapping[str, Any] | None = None,
) -> Iterator[OutputFolder]:
    """Hold an output folder, local or s3://, for as long as the context lasts; it is made where it is missing.

    Args:
        results: where the ledger publishes results, as ASSETS.
        rows_per_part: results in a table, at most.
        settings: JSON values that its files depend on; None where the job compares them itself.

    Raises:
        UserError: when another job holds it, or it was made with other settings.
        LeaseLost: on leaving, when another job took it over.
    """
    store = open_store(url, storage)
    check_format(store)
    with Lease(store) as lease:
        store.sweep()
        write_format(store)
        if settings is not None:
            settle(store, settings)
        ledger = Ledger(store, results, rows_per_part, lease)
        ledger.publish()
        yield OutputFolder(store=store, lease=lease, ledger=ledger)


def settle(store: Store, settings: Mapping[str, Any]) -> None:
    """Write down what a folder's files depend on; UserError, naming the differences, where that was something else."""
    wanted = json.dumps(settings, indent=2).encode()
    if not store.create(IDENTITY, wanted):
        found: Any = read_json(store, IDENTITY) or {}
        changed = [f"{k} {found.get(k)}, now {v}" for k, v in json.loads(wanted).items() if found.get(k) != v]
        if changed:
            raise UserError(f"{store.root} was made with {'; '.join(changed)}: choose another --out")
