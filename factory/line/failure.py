"""Keep what a failed try says after its frames are gone: `Failure`, and `place_of` a trace.

An exception holds the frames that it passed, and with them every tensor of the try. A `Failure` holds text alone.
"""

from __future__ import annotations

import errno
import re
import traceback
from dataclasses import dataclass
from typing import Any

from factory.storage.credentials import scrub

MAX_MESSAGE = 2_000
MAX_TRACE = 4_096
"""Characters of a trace that a dead letter holds: the last ones, where the error was raised."""
_TOO_LARGE = ("out of memory", "not enough memory", "alloc_failed", "canuse32bitindexmath", "int_max")
"""What messages say, in lower case, when a batch did not fit: memory of the host or a GPU, a library's workspace, or
tensors with more elements than a kernel counts."""
_FRAME = re.compile(r'^ *File "(?P<file>[^"]+)", line (?P<line>\d+)', re.MULTILINE)
_SLASH = r"[/\\]"
_LIBRARIES = re.compile(r"[/\\](site-packages|dist-packages|lib[/\\]python3[.\d]*)[/\\]|^<")


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """A failed try of some rows."""

    kind: str
    """The exception's class."""
    message: str
    trace: str
    """All of it, without credentials."""
    too_large: bool
    """Whether fewer rows at a time may succeed."""
    broken_device: bool
    """Whether CUDA will fail from now on whatever is asked of it in this process."""

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """What an exception says; call it while the exception is handled, and let go of that afterwards."""
        too_large = is_too_large(error)
        return cls(
            kind=type(error).__name__,
            message=scrub(_text(_message(error)))[:MAX_MESSAGE],
            trace=scrub(_text("".join(traceback.format_exception(error)))),
            too_large=too_large,
            broken_device=isinstance(error, RuntimeError) and "CUDA error" in str(error) and not too_large,
        )

    def mark(self, row: dict[str, Any], stage: str) -> None:
        """Turn a row into a dead letter of this failure."""
        row.update(error_stage=stage, error_type=self.kind, error_message=self.message)
        row["error_trace"] = self.trace[-MAX_TRACE:]


def is_too_large(error: BaseException) -> bool:
    """Whether the batch did not fit, so that a smaller one may."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    text = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in text for words in _TOO_LARGE)
    )


def place_of(trace: str | None) -> str:
    """Where a trace ends, as "stages/score.py:41": in code that is not a library's, where any is; "" without one."""
    frames = [(found["file"], found["line"]) for found in _FRAME.finditer(trace or "")]
    if not frames:
        return ""
    own = [frame for frame in frames if not _LIBRARIES.search(frame[0])]
    file, line = (own or frames)[-1]
    return f"{'/'.join(re.split(_SLASH, file)[-2:])}:{line}"


def _message(error: BaseException) -> str:
    return f"sys.exit({error.code!r}) was called" if isinstance(error, SystemExit) else str(error)


def _text(text: str) -> str:
    """The text as UTF-8 can hold it."""
    return text.encode("utf-8", "replace").decode("utf-8")
