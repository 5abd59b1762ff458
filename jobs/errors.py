"""Say what went wrong: a sentence for a user's mistake, a traceback for everything else: `guarded`.

Exit code 2: a `UserError` or a `StorageError`, in one sentence. 3: any other error, with its traceback and place.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Callable

from factory.line.failure import place_of
from factory.storage.credentials import scrub
from factory.storage.interface import StorageError
from recon.user_error import UserError

DEBUG = "IM3D_DEBUG"
"""Environment variable that does what --debug does."""
_IN_ONE_SENTENCE = (UserError, StorageError)
_OF_WORKER = re.compile(rf"[\w.]*\b(?:{'|'.join(kind.__name__ for kind in _IN_ONE_SENTENCE)}): (?P<sentence>.+)")
"""The last line of the text that Ray makes of such an error in a worker."""


def guarded(run: Callable[[], int], debug: bool = False) -> int:
    """Run a job; returns its exit code, or that of the error that it ended with.

    Args:
        debug: print the tracebacks of mistakes too; IM3D_DEBUG=1 does so as well.
    """
    try:
        return run()
    except BrokenPipeError:
        sys.stdout = None  # whoever read has left: nothing more to say
        return 1
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        return 1
    except Exception as error:
        trace, mistake = scrub("".join(traceback.format_exception(error))), sentence(error)
        if mistake is None or debug or os.environ.get(DEBUG, "0") not in ("", "0"):
            print(trace, end="", file=sys.stderr)
        if mistake is not None:
            print(scrub(f"error: {mistake}"), file=sys.stderr)
            return 2
        where = place_of(trace) or "outside of our code"
        print(scrub(f"error: {type(error).__name__} at {where}: {_last_line(error)}"), file=sys.stderr)
        return 3


def sentence(error: BaseException) -> str | None:
    """What a user's mistake or a failing storage says, in the driver or a worker of Ray's; None for other errors."""
    if type(error).__module__.startswith("ray."):
        found = _OF_WORKER.fullmatch(_last_line(error))
        return found["sentence"] if found else None
    return str(error) if isinstance(error, _IN_ONE_SENTENCE) else None


def _last_line(error: BaseException) -> str:
    return next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), "")
