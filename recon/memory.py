"""Measure how much memory a piece of work takes at its peak: `PeakMemory`."""

from __future__ import annotations

import ctypes
from pathlib import Path
from types import TracebackType

import torch


class PeakMemory:
    """Use as a context; afterwards `bytes` is the growth from the start to the peak, or None where it is not known.

    On CUDA that of torch's allocator, else the resident memory of this process, which Linux alone tells.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.bytes: int | None = None

    def __enter__(self) -> PeakMemory:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self._start: int | None = torch.cuda.memory_allocated(self.device)
        else:
            self._start = _reset_peak()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        if self.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self.device)
        else:
            peak = _status("VmHWM")
        self.bytes = None if peak is None or self._start is None else max(peak - self._start, 0)


def _reset_peak() -> int | None:
    """Make the present resident memory the peak; returns it. What was freed before goes back to the system first."""
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return _status("VmRSS")


def _status(name: str) -> int | None:
    """A field of /proc/self/status in bytes."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), None)
