"""Say what went wrong: a sentence for a user's mistake, a place for everything else, a traceback on demand: `guarded`.

Exit code 2: a mistake, or missing machinery. 3: an error that nobody foresaw.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable

from factory.line.failure import place_of
from factory.storage.credentials import scrub
from factory.storage.interface import StorageError
from factory.storage.user_error import UserError

DEBUG = "IM3D_DEBUG"
"""Environment variable that does what --debug does."""


def guarded(run: Callable[[], int], debug: bool = False) -> int:
    """Run a job; returns its exit code, or that of the error that it ended with.

    Args:
        debug: print tracebacks; IM3D_DEBUG=1 does so too.
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
        trace = scrub("".join(traceback.format_exception(error)))
        if debug or os.environ.get(DEBUG, "0") not in ("", "0"):
            print(trace, end="", file=sys.stderr)
        print(scrub(f"error: {sentence(error)}"), file=sys.stderr)
        if not isinstance(error, UserError | StorageError):
            where = place_of(trace) or "outside of our code"
            print(f"  {type(error).__name__} at {where}; --debug shows the traceback", file=sys.stderr)
        return 2 if isinstance(error, ValueError | RuntimeError | OSError) else 3


def sentence(error: BaseException) -> str:
    """What an error says; of one that Ray brings from a worker, with its traceback, the last line."""
    text = str(error).strip()
    if type(error).__module__.startswith("ray.") and text:
        return text.splitlines()[-1].strip()
    if not text or not isinstance(error, ValueError | RuntimeError | OSError):
        return f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text
