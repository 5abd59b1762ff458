"""Say what this machine can run, and how to mend each miss: `im3d doctor --preset paper --weights DIR --out s3://...`.

Exit code: 0 when nothing is amiss, 1 when something is, 2 when the settings allow no run.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from factory.config.settings import FactoryConfig, Preset
from jobs.base import start
from jobs.settings import parse


@dataclass(kw_only=True, slots=True)
class Doctor:
    """Look at GPU, driver, torch, gsplat, networks, shared memory, caches and storage, as a run would want them."""

    preset: Preset = "pocket"
    """Settings to start from."""
    config: str | None = None
    """YAML file of settings, read before the flags."""
    out: str | None = None
    """Where the run would write, a local path or s3:// address: it is listed, and not written to."""
    settings: Annotated[FactoryConfig, tyro.conf.arg(name="")] = field(default_factory=FactoryConfig)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, look, show; returns the exit code."""
    return start("doctor", Doctor, run, argv, lambda arguments: parse(Doctor, arguments))


def run(job: Doctor) -> int:
    """Show everything, one line each, and below it what to do about what is amiss; returns the exit code."""
    from factory.line.summary import make_console
    from factory.stages.doctor import examine

    console, missed = make_console(), 0
    for finding in examine(job.settings, job.out):
        missed += bool(finding.cure)
        mark = "MISS" if finding.cure else "ok"
        console.print(f"{mark:5}{finding.what:16}{finding.found}", markup=False, highlight=False, soft_wrap=True)
        if finding.cure:
            console.print(f"     {'':16}{finding.cure}", markup=False, highlight=False, soft_wrap=True)
    print(f"{missed} amiss" if missed else "nothing amiss")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
