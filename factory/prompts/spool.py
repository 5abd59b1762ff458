"""Keep the pictures of a table on disk until their rows are worked on: `Spool`."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from recon.user_error import UserError


@contextmanager
def temporary_space() -> Iterator[None]:
    """Around writes to temporary files: a full disk is a sentence that names their folder."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(f"{tempfile.gettempdir()}, where the rows of the table wait, is full: free space, or name "
                        "another folder in TMPDIR") from error  # fmt: skip


class Spool:
    """A nameless temporary file (in TMPDIR) that only grows; it goes with the last reference to it."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - open as long as the spool
        self._end = 0

    def add(self, data: bytes) -> Spooled:
        """Keep bytes; raises UserError when the disk is full."""
        start, view = self._end, memoryview(data)
        with temporary_space():
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
