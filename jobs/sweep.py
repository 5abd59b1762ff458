"""Remove the files that no row names: `im3d sweep --out DIR`.

Exit code: 0, or 2 when a run writes into the folder, or it cannot be read.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from jobs.base import Job, start
from recon.user_error import UserError


@dataclass(kw_only=True, slots=True)
class Sweep(Job):
    """Remove what killed workers left behind in an output folder of `im3d generate`."""

    out: str
    """The folder, a local path or s3:// address."""
    grace_hours: float = 24.0
    """Files younger than this stay: a worker cut off from its cluster may still commit them; >= 0."""
    dry_run: bool = False
    """Only say what would go."""

    def __post_init__(self) -> None:
        if self.grace_hours < 0:
            raise UserError(f"grace_hours is {self.grace_hours}; it must be at least 0")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, report; returns the exit code."""
    return start("sweep", Sweep, run, argv)


def run(job: Sweep) -> int:
    """Sweep the folder; returns the exit code. Raises UserError for the user."""
    from factory.ledger.run_identity import SETTINGS, is_new
    from factory.ledger.sweep import sweep_files
    from factory.line.output_folder import open_output
    from factory.storage.read_only import open_read_only

    if is_new(open_read_only(job.out, job.storage)):
        raise UserError(f"{job.out} holds no {SETTINGS}; give an output folder of im3d generate")
    with open_output(job.out, job.storage) as folder:
        found = sweep_files(folder.ledger, job.grace_hours * 3600, job.dry_run)
    verb = "would go" if job.dry_run else "removed"
    print(f"{found.removed} of {found.files} files {verb}, {found.size / 1e6:.1f} MB: no row of {job.out} names them")
    return 0


if __name__ == "__main__":
    sys.exit(main())
