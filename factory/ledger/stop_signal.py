"""Stop a run in order on SIGTERM, as a preempted driver or `ray job stop` gets it: `handle_stops`."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def handle_stops() -> dict[signal.Signals, Any]:
    """Let SIGTERM interrupt the main thread as Ctrl-C does, and SIGINT too where a shell started it with that ignored.

    Returns the handlers to put back with `restore`; none in other threads, which may not set any.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    before: dict[signal.Signals, Any] = {signal.SIGTERM: signal.signal(signal.SIGTERM, _interrupt_on_sigterm)}
    if not callable(signal.getsignal(signal.SIGINT)):
        before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    return before


def restore(handlers: dict[signal.Signals, Any]) -> None:
    """Put handlers back."""
    for number, handler in handlers.items():
        signal.signal(number, handler)


@contextmanager
def preserved_handler(number: signal.Signals) -> Iterator[None]:
    """Undo what the block does to a signal's handler: those of Ray leave no time to put things in order, or stay."""
    before = signal.getsignal(number)
    try:
        yield
    finally:
        if callable(before) and threading.current_thread() is threading.main_thread():
            signal.signal(number, before)


def _interrupt_on_sigterm(*_: object) -> None:
    """A second SIGTERM would cut off what the first one has begun to put in order."""
    signal.signal(signal.SIGTERM, lambda *_: None)
    raise KeyboardInterrupt
