"""Keep the pictures of a table on disk until their rows are worked on: `Spool`."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass


class Spool:
    """A nameless temporary file (in TMPDIR) that only grows; it goes with the last reference to it."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - open as long as the spool
        self._end = 0

    def add(self, data: bytes) -> Spooled:
        """Keep bytes; raises OSError when the disk is full."""
        start, view = self._end, memoryview(data)
        while view:
            written = os.pwrite(self._file.fileno(), view, self._end)
            self._end += written
            view = view[written:]
        return Spooled(spool=self, start=start, size=len(data))

    def read(self, start: int, size: int) -> bytes:
        """`size` bytes from `start`."""
        return os.pread(self._file.fileno(), size, start)


@dataclass(kw_only=True, slots=True)
class Spooled:
    """Where some bytes lie."""

    spool: Spool
    start: int
    size: int

    def read(self) -> bytes:
        """The bytes."""
        return self.spool.read(self.start, self.size)
