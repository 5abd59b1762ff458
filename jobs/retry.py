"""Run dead letters again: `im3d retry --out DIR`, all of them, or those of a stage or an error.

Exit code: 0 when each has its asset now, 1 when some are dead letters again, 2 when nothing could run.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from factory.config.settings import FactoryConfig
from jobs.base import start
from jobs.generate import Generate, check_changes, make
from jobs.settings import parse_over, settings_of_run
from recon.user_error import UserError

if TYPE_CHECKING:
    from factory.prompts.prompt_table import PromptTable
    from factory.storage.interface import ReadableStore


@dataclass(kw_only=True, slots=True)
class Retry:
    """Run the dead letters of an output folder again, with the folder's settings; flags change those of the line."""

    out: str
    """Output folder of `im3d generate`, a local path or s3:// address."""
    stage: str | None = None
    """Only those that failed in this stage, as reconstruct; `prompts` for rows that could not be used."""
    error: str | None = None
    """Only those with this error type, as worker_killed."""
    prompts: str | None = None
    """Table that holds their prompts; by default the tables that were run into the folder."""
    image_root: str | None = None
    """Folder that image paths in --prompts may not leave; the table's own by default."""
    image_hosts: tuple[str, ...] = ()
    """Hosts that images of --prompts may be fetched from by https:// addresses; none by default."""
    accept_changes: bool = False
    """Go on although settings or weights have changed, and mix."""
    settings: Annotated[FactoryConfig, tyro.conf.arg(name="")] = field(default_factory=FactoryConfig)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, report; returns the exit code."""
    return start("retry", Retry, run, argv, _parse)


def _parse(arguments: list[str]) -> Retry:
    """The flags over the folder's own settings; the first look at them tells the folder and how to reach it."""
    missing: Any = tyro.MISSING
    first = parse_over(Retry(out=missing), arguments)
    base = settings_of_run(first.out, first.settings.storage)
    base.line.max_failed_share = 1.0  # rows that failed before may all fail again
    return parse_over(Retry(out=missing, settings=base), arguments)


def run(job: Retry) -> int:
    """Run the chosen dead letters again; returns the exit code. Raises UserError and RuntimeError for the user."""
    from factory.ledger.ledger import DEAD
    from factory.line.output_folder import open_output

    with open_output(job.out, job.settings.storage) as folder:
        letters = list(folder.ledger.rows(DEAD, ["prompt_id", "error_stage", "error_type"]))
        chosen = {row["prompt_id"] for row in letters if _wanted(row, job)}
        if not chosen:
            kinds = sorted({f"{row['error_stage']}: {row['error_type']}" for row in letters})
            print(f"No such dead letters in {job.out}. Available: {', '.join(kinds) or 'none'}")
            return 0
        table = _table(job, folder.store, chosen)
        as_generate = Generate(prompts=job.out, out=job.out, accept_changes=job.accept_changes, settings=job.settings)
        needs = check_changes(as_generate, folder, needs_weights=True)
        folder.ledger.requeue({prompt.prompt_id for prompt in table.prompts})
        return make(as_generate, table, folder, needs)


def _wanted(row: dict[str, Any], job: Retry) -> bool:
    return job.stage in (None, row["error_stage"]) and job.error in (None, row["error_type"])


def _table(job: Retry, store: ReadableStore, chosen: set[str]) -> PromptTable:
    """The prompts of dead letters, from the tables that they come from.

    Raises:
        UserError: when there is no such table, or it holds none of them as a usable row.
    """
    from factory.ledger.run_identity import inputs
    from factory.prompts.prompt_rows import PromptRows
    from factory.prompts.prompt_table import PromptTable, read_prompts

    sources = inputs(store)
    if job.prompts:
        sources = [
            {"prompts": job.prompts, "limit": None, "image_root": job.image_root, "image_hosts": job.image_hosts}
        ]
    if not sources:
        raise UserError(f"{job.out} does not say which tables were run into it: give --prompts")
    found: dict[str, Any] = {}
    for source in sources:
        hosts = source.get("image_hosts", ())  # folders of earlier versions know none
        table = read_prompts(source["prompts"], source["limit"], source["image_root"], job.settings.storage, hosts)
        found |= {prompt.prompt_id: prompt for prompt in table.prompts if prompt.prompt_id in chosen}
    left = len(chosen) - len(found)
    if left:
        print(f"{left} of {len(chosen)} dead letters stay: no usable row of {', '.join(s['prompts'] for s in sources)}")
    if not found:
        raise UserError("none of the dead letters can run again: correct their rows in the table, or give --prompts")
    return PromptTable(prompts=PromptRows.of(list(found.values())))


if __name__ == "__main__":
    sys.exit(main())
