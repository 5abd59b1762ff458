"""Count the CPUs that this process may use by its affinity and its container's quotas: `available_cpus`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def available_cpus(root: Path = Path("/")) -> int:
    """CPUs of the machine, of this process's affinity, or of the tightest quota (cgroup v1 or v2), whichever is least.

    Args:
        root: where `proc` and `sys` are mounted.

    Returns:
        At least 1; a quota of 2.5 CPUs counts as 2.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([allowed, *_quotas(root)])))


def logical_cpus() -> int:
    """CPUs that a Ray of this machine counts: `Pool.threads` bounds the real ones, and reading needs some too."""
    return max(8, available_cpus())


def _quotas(root: Path) -> Iterator[float]:
    """CPUs by the quota of every control group that this process is in, and of those above; most have none."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            mounts = ["sys/fs/cgroup", "sys/fs/cgroup/unified"]
        elif "cpu" in controllers.split(","):
            mounts = [f"sys/fs/cgroup/{controllers}", "sys/fs/cgroup/cpu"]
        else:
            continue
        for mount in mounts:
            place = root / mount / path.lstrip("/")
            while place.is_relative_to(root / mount):
                yield from _quota(place)
                place = place.parent


def _quota(group: Path) -> Iterator[float]:
    """The quota in CPUs that a group's files state, if they do: microseconds of CPU in a period."""
    for texts in (
        _read(group / "cpu.max").split(),
        [_read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us")],
    ):
        if len(texts) == 2 and all(text.strip().isdigit() for text in texts):  # "max" and -1 mean none
            quota, period = map(int, texts)
            if quota > 0 and period > 0:
                yield quota / period


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
