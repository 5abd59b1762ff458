"""Allow one writer per output folder, by a lease with a heartbeat in the folder itself: `Lease`."""

from __future__ import annotations

import _thread
import json
import os
import re
import socket
import threading
import time
import uuid
from typing import Any

from factory.ledger.stop_signal import handle_stops, restore
from factory.storage.store import Store
from recon.user_error import UserError

HEARTBEAT_SECONDS = 10.0
_LEASE = re.compile(r"/\d{8}\.json$")
STALE_SECONDS = 60.0


class LeaseLost(UserError):
    """Another run has taken over the folder; this one must not write tables any more."""


class Lease:
    """Context manager. Leases are numbered; whoever creates the next number owns the folder.

    A lease is free when it was given back, when its process on this very host is gone, or when its last
    heartbeat is older than `stale_seconds`. A holder whose heartbeat finds a higher number, or that could not beat
    for so long, has lost it: the main thread is interrupted, and leaving raises LeaseLost. While the lease is held,
    SIGTERM interrupts the main thread too, so that the folder is left in order.

    Args:
        store: the folder.
        stale_seconds: after how long without heartbeat others may take over.
        beat_seconds: between heartbeats.

    Raises:
        ValueError: on entering, while another writer holds the folder.
        LeaseLost: on leaving, when another took it over.
    """

    def __init__(
        self, store: Store, stale_seconds: float = STALE_SECONDS, beat_seconds: float = HEARTBEAT_SECONDS
    ) -> None:
        self.store = store
        self.stale_seconds, self.beat_seconds = stale_seconds, beat_seconds
        self.owner = uuid.uuid4().hex
        self.key = ""
        self.lost = ""
        self._stop = threading.Event()
        self._handlers: dict[Any, Any] = {}
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)

    def __enter__(self) -> Lease:
        held = sorted(filter(_LEASE.search, self.store.keys("lease/")))
        number = 0
        if held:
            number = int(held[-1].rsplit("/", 1)[1].split(".")[0]) + 1
            self._check_holder_is_gone(held[-1])
        self.key = f"lease/{number:08d}.json"
        if not self.store.create(self.key, self._record()):
            raise UserError(f"{self.store.root}: another run took this folder just now; wait for it or choose another")
        for key in held:
            self.store.delete(key)
        self._handlers = handle_stops()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        self._stop.set()
        self._thread.join()
        restore(self._handlers)
        if self.lost:
            if kind is None or issubclass(kind, KeyboardInterrupt):
                raise LeaseLost(self.lost) from None
            return
        self.store.put(self.key, self._record(released=True))

    def check(self) -> None:
        """Raises LeaseLost unless the folder is still ours; asks the storage."""
        newer = [key for key in self.store.keys("lease/") if key > self.key and _LEASE.search(key)]
        if newer:
            self.lost = f"{self.store.root}: another run took this folder over ({newer[-1]}); this one stops"
        if self.lost:
            raise LeaseLost(self.lost)

    def _check_holder_is_gone(self, key: str) -> None:
        try:
            record = json.loads(self.store.get(key))
            age = time.time() - record["time"]
            if record["released"] or age > self.stale_seconds or _is_gone(record):
                return
        except KeyError:
            return
        except (ValueError, TypeError) as error:  # damaged: whoever holds the folder writes the file anew
            written = max((item.modified for item in self.store.objects("lease/") if item.key == key), default=0.0)
            if time.time() - written > self.stale_seconds:
                return
            raise UserError(
                f"{self.store.root}/{key} is damaged, so that nobody knows whether another run writes here; try again "
                f"in {self.stale_seconds:.0f} s"
            ) from error
        raise UserError(
            f"{self.store.root}: a run on {record['host']} (process {record['pid']}) writes here, "
            f"last seen {age:.0f} s ago; wait for it, stop it, or choose another folder"
        )

    def _record(self, released: bool = False) -> bytes:
        record = {"owner": self.owner, "host": socket.gethostname(), "pid": os.getpid(), "released": released}
        return json.dumps(record | {"started": _start_time(os.getpid()), "time": time.time()}).encode()

    def _beat(self) -> None:
        last = time.monotonic()
        while not self._stop.wait(self.beat_seconds) and not self.lost:
            try:
                self.check()
                self.store.put(self.key, self._record())
                last = time.monotonic()
            except LeaseLost:
                return _thread.interrupt_main()
            except OSError as error:
                if time.monotonic() - last > self.stale_seconds:
                    self.lost = (
                        f"{self.store.root}: no heartbeat could be written for {self.stale_seconds:.0f} s ({error})"
                    )
                    return _thread.interrupt_main()


def _start_time(pid: int) -> float | None:
    """When a process of this host started, so that a reused number is recognised; None when it is gone."""
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None


def _is_gone(record: dict[str, Any]) -> bool:
    if record["host"] != socket.gethostname():
        return False
    started = _start_time(record["pid"])
    return started is None or abs(started - record["started"]) > 1
