"""Start or join Ray, and say how its Ray Data treats failures: `start_ray`, `configure_data`."""

from __future__ import annotations

import logging
import os
import signal
from typing import Any

import ray
from ray.data import DataContext

from factory.ledger.stop_signal import preserved_handler
from factory.line.cpus import logical_cpus
from factory.line.shared_memory import LOCAL_STORE_BYTES
from recon.user_error import UserError

START_ATTEMPTS = 3
"""Ray gives its own processes 30 seconds to come up, which a busy machine may not manage at once."""
_SLOW = ("timed out", "may not have started", "failed to start gcs", "failed to connect to gcs")


def start_ray(address: str, store_bytes: int = LOCAL_STORE_BYTES) -> None:
    """Start Ray on this machine ("local") or join a cluster; nothing when a session is already open.

    Tried three times where Ray's own processes come up too slowly; nothing else gets better by trying.

    Raises:
        RuntimeError: in one sentence, when it cannot be started or no cluster is there.
    """
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_worker_niceness", "0")  # 15 by default: any other program would starve the workers
    common: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address == "local":
        common |= {"num_cpus": logical_cpus(), "object_store_memory": store_bytes, "include_dashboard": False}
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            with preserved_handler(signal.SIGTERM):
                ray.init(address, **common)
            return
        except ConnectionError as error:
            raise UserError(
                f"no Ray cluster answers at {address!r}: start one (`ray start --head`), or set line.address to local"
            ) from error
        except Exception as error:
            ray.shutdown()
            if attempt == START_ATTEMPTS or not _is_startup_timeout(error):
                raise UserError(f"Ray did not start: {error}") from error


def _is_startup_timeout(error: Exception) -> bool:
    """Whether Ray's own processes did not come up in time; Ray says so in words only, mostly of a bare Exception."""
    return isinstance(error, TimeoutError) or any(words in str(error).lower() for words in _SLOW)


def configure_data() -> None:
    """How Ray Data treats failures: a lost block never stops the line, the ledger finds what it held."""
    context = DataContext.get_current()
    context.max_errored_blocks = -1
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
