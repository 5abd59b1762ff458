"""`im3d generate --dry-run N`: a sample through the real line, and what the whole table would take.

Exit code: 0 with an estimate, 2 when there can be none.
"""

from __future__ import annotations

import json
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from factory.ledger.ledger import Ledger
    from factory.line.estimate import Estimate, Range, Sample
    from factory.line.tally import Tally
    from factory.prompts.table import PromptTable
    from jobs.generate import Generate


def dry_run(job: Generate, table: PromptTable, count: int) -> int:
    """Make `count` prompts of the table in another folder and print the estimate; returns the exit code.

    Raises:
        ValueError: for too small a sample, or a folder that cannot be used.
    """
    from factory.ledger.ledger import DEAD
    from factory.line.estimate import choose, estimate
    from factory.line.summary import dead_table, make_console
    from factory.stages.chain import pools_of
    from factory.stages.preflight import find_weights

    prompts = {prompt.prompt_id: prompt for prompt in table.prompts}
    chosen, console = [prompts[name] for name in choose(list(prompts), count)], make_console()
    find_weights(job.settings)
    with _folder(job) as out:
        print(f"Dry run of {len(chosen)} of {len(table.prompts)} prompts; {job.out} is not touched")
        sample, ledger = _measure(job, chosen, out)
        dead = list(ledger.rows(DEAD))
        if dead:
            console.print(dead_table(dead))
        found = estimate(sample, len(table.prompts), job.settings.cost, pools_of(job.settings))
        ledger.store.put("estimate.json", json.dumps(asdict(found), indent=1).encode())
    console.print(estimate_table(found))
    return 0


@contextmanager
def _folder(job: Generate) -> Iterator[str]:
    """Where the sample goes: the given folder, or one that goes again."""
    if job.dry_run_out:
        yield job.dry_run_out
    elif job.settings.line.address != "local":
        raise ValueError("the workers of a cluster do not see a temporary folder of this machine; give --dry-run-out")
    else:
        with tempfile.TemporaryDirectory(prefix="im3d-dry-run-") as folder:
            yield folder


def _measure(job: Generate, chosen: list[Any], out: str) -> tuple[Sample, Ledger]:
    """Run the line over the chosen prompts."""
    from factory.ledger.lease import Lease
    from factory.ledger.ledger import Ledger
    from factory.line.progress import Display
    from factory.line.run import run_line
    from factory.pipeline import steps
    from factory.prompts.work import PromptWork
    from factory.storage.store import open_store

    store = open_store(out, job.settings.storage)
    with Lease(store) as lease:
        ledger = Ledger(store, lease=lease)
        if len(ledger.done) + len(ledger.dead):
            raise ValueError(f"{out} holds outcomes already; give an empty folder as --dry-run-out")
        chain = steps(job.settings, out, uuid.uuid4().hex[:12])
        work = PromptWork(prompts=chosen, config=job.settings)
        tally = run_line(work, chain, job.settings.line, ledger, Display())
        return _seen(ledger, tally, len(chosen), job), ledger


def _seen(ledger: Ledger, tally: Tally, prompts: int, job: Generate) -> Sample:
    """What the run over the sample left: rows, files and the board's counts."""
    from factory.ledger.ledger import ASSETS
    from factory.ledger.schemas import by_part
    from factory.line.estimate import Sample
    from factory.stages.chain import pools_of

    rows = list(ledger.rows(ASSETS, lambda name: name == "ply" or name.startswith(("seconds_", "forwards_"))))
    counts, pools = tally.last.stages, pools_of(job.settings)
    seconds = {
        # the last stage's time is no column, since it ends after the row is written
        stage: [row.get(f"seconds_{stage}", count.seconds / max(count.finished, 1)) or 0.0 for row in rows]
        for stage, count in counts.items()
    }
    sizes = {row["ply"]["path"].rpartition("/")[0]: 0.0 for row in rows}
    for item in ledger.store.objects("files/"):
        folder = "/".join(item.key.split("/")[:2])
        if folder in sizes:
            sizes[folder] += item.size
    tables = sum(item.size for item in ledger.store.objects(f"{ASSETS}/")) / max(len(rows), 1)
    return Sample(
        prompts=prompts,
        seconds=seconds,
        loading=max(count.actor_seconds["loading"] / pools[stage].actors for stage, count in counts.items()),
        sizes=[size + tables for size in sizes.values()],
        forwards=[float(sum(row[name] or 0 for name in by_part(row, "forwards").values())) for row in rows],
    )


def estimate_table(found: Estimate) -> Any:
    """The estimate for a terminal."""
    from rich.table import Table

    from eval.page import money

    title = f"{found.prompts:,} prompts, from a sample of {found.sampled}; the run waits for {found.slowest}"
    table = Table(title=title, title_justify="left")
    for name in ("", "estimate", "95% interval"):
        table.add_column(name, justify="left" if not name else "right")

    def add(name: str, values: Range, form: Any) -> None:
        table.add_row(name, form(values.mid), f"{form(values.low)} to {form(values.high)}")

    add("prompts that make an asset", found.share, lambda value: f"{value:.1%}")
    add("time", found.seconds, _duration)
    add("network evaluations", found.forwards, lambda value: f"{value:,.0f}")
    add("storage", found.size, _bytes)
    if found.dollars.mid:
        add("cost of the actors", found.dollars, money)
        add("of that in model code", found.model_dollars, money)
    if found.storage_dollars.mid:
        add("storage a month", found.storage_dollars, money)
    return table


def _duration(seconds: float) -> str:
    hours = seconds / 3600
    return f"{hours:,.1f} h" if hours >= 1 else f"{seconds / 60:.1f} min"


def _bytes(size: float) -> str:
    unit = next(power for power in (4, 3, 2, 1, 0) if size >= 1000**power or not power)
    return f"{size / 1000**unit:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[unit]}"
