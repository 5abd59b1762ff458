"""Check a run, and make again what is damaged: `im3d check --out DIR [--repair]`.

Exit code: 0 when every row has its files and every table can be read (with --repair: again), 1 when not
or when the runs that repair have dead letters, 2 when the folder is no run, or is held by one that goes on.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobs.base import Job, start
from recon.user_error import UserError

if TYPE_CHECKING:
    from factory.ledger.check_run import Checked

SHOWN = 20


@dataclass(kw_only=True, slots=True)
class Check(Job):
    """Read every table and file of an output folder of `im3d generate`, and compare sizes and digests."""

    out: str
    """The folder, a local path or s3:// address."""
    repair: bool = False
    """Move damaged tables aside, forget rows whose files are damaged, and make all that is missing again, with the
    run's own settings and tables of prompts."""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, report; returns the exit code."""
    return start("check", Check, run, argv)


def run(job: Check) -> int:
    """Check the folder, and repair it where wanted; returns the exit code. Raises UserError for the user."""
    from factory.ledger.check_run import check_run
    from factory.ledger.folder_format import check_format
    from factory.ledger.run_identity import SETTINGS, is_new
    from factory.storage.read_only import open_read_only

    store = open_read_only(job.out, job.storage)
    check_format(store)
    if is_new(store):
        raise UserError(f"{job.out} holds no {SETTINGS}; give an output folder of im3d generate")
    found = check_run(store)
    _tell(job, found)
    if not job.repair or (found.whole and not found.orphans):  # files without a row: a table may be lost
        return 0 if found.whole else 1
    code = _repair(job, found)
    again = check_run(store)
    _tell(job, again)
    return code if again.whole else 1


def _tell(job: Check, found: Checked) -> None:
    problems = [f"{error}; the rows of it run again" for error in found.damaged]
    problems += [f"{name}: {', '.join(what)}" for name, what in found.broken.items()]
    problems += [f"{name} has more than one row" for name in found.repeated]
    print("".join(f"  {problem}\n" for problem in problems[:SHOWN]), end="")
    if len(problems) > SHOWN:
        print(f"  ... and {len(problems) - SHOWN} more")
    if found.strays:
        print(f"{len(found.strays)} files are no tables of ours and are passed over: {', '.join(found.strays[:SHOWN])}")
    if found.orphans:
        print(f"{found.orphans} files ({found.orphan_bytes / 1e6:.1f} MB) belong to no row: a worker died, or a table "
              "is lost; --repair makes missing rows again, then `im3d sweep` removes the files")  # fmt: skip
    what = "all whole" if found.whole else f"{len(problems)} problems"
    way_out = "" if found.whole or job.repair else "; --repair makes what is missing again"
    print(f"{found.rows} assets, {found.files} files compared: {what}{way_out}")


def _repair(job: Check, found: Checked) -> int:
    """Take out what is damaged, and run the tables of prompts again; returns the exit code of the last run."""
    from factory.ledger.run_identity import inputs
    from factory.line.output_folder import open_output

    with open_output(job.out, job.storage) as folder:  # moves damaged tables aside
        forgotten = folder.ledger.forget({*found.broken, *found.repeated})
        sources = inputs(folder.store)
    print(f"{len(found.damaged)} tables moved aside, {forgotten} rows forgotten")
    if not sources:
        raise UserError(f"{job.out} does not say which tables were run into it: run im3d generate with them again")
    return max(_generate(job, source) for source in sources)


def _generate(job: Check, source: dict[str, Any]) -> int:
    """Make what the folder lacks of a table that was run into it; returns the exit code."""
    from jobs import generate
    from jobs.settings import settings_of_run

    settings = settings_of_run(job.out, job.storage)
    settings.storage = job.storage
    known = {name: source[name] for name in ("prompts", "limit", "image_root")}
    hosts = tuple(source.get("image_hosts", ()))  # folders of earlier versions know none
    return generate.run(generate.Generate(out=job.out, settings=settings, image_hosts=hosts, **known))


if __name__ == "__main__":
    sys.exit(main())
