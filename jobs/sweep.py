"""Remove the files that no row names: `im3d sweep --out DIR`.

Exit code: 0, or 2 when a run writes into the folder, or it cannot be read.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import tyro

from factory.storage.store import StorageConfig
from jobs.settings import guarded


@dataclass(kw_only=True, slots=True)
class Sweep:
    """Remove what killed workers left behind in an output folder of `im3d generate`."""

    out: str
    """The folder, a local path or s3:// address."""
    grace_hours: float = 24.0
    """Files younger than this stay: a worker cut off from its cluster may still commit them; >= 0."""
    dry_run: bool = False
    """Only say what would go."""
    storage: StorageConfig = field(default_factory=StorageConfig)

    def __post_init__(self) -> None:
        if self.grace_hours < 0:
            raise ValueError(f"grace_hours is {self.grace_hours}; it must be at least 0")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, report; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: run(tyro.cli(Sweep, args=arguments, prog="im3d sweep")))


def run(job: Sweep) -> int:
    """Sweep the folder; returns the exit code. Raises ValueError for the user."""
    from factory.ledger.lease import Lease
    from factory.ledger.ledger import Ledger
    from factory.ledger.run_identity import SETTINGS
    from factory.ledger.sweep import sweep_files
    from factory.storage.store import open_store

    store = open_store(job.out, job.storage)
    try:
        store.get(SETTINGS)
    except KeyError:
        raise ValueError(f"{job.out} holds no {SETTINGS}; give an output folder of im3d generate") from None
    with Lease(store) as lease:
        store.sweep()
        found = sweep_files(Ledger(store, lease=lease), job.grace_hours * 3600, job.dry_run)
    verb = "would go" if job.dry_run else "removed"
    print(f"{found.removed} of {found.files} files {verb}, {found.size / 1e6:.1f} MB: no row of {job.out} names them")
    return 0


if __name__ == "__main__":
    sys.exit(main())
