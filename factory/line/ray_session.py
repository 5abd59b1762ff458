"""Ray itself: starting or joining it, how its Ray Data treats failures, and whether the weights are there."""

from __future__ import annotations

import logging
import os
import signal
from typing import Any

import ray
from ray.data import DataContext

from factory.config.settings import FactoryConfig
from factory.ledger.run_identity import Weights, weights_of
from factory.line.object_store import LOCAL_STORE_BYTES
from factory.line.stop_signal import handler_kept

START_ATTEMPTS = 3
"""Ray gives its own processes 30 seconds to come up, which a busy machine may not manage at once."""


def start_ray(address: str, store_bytes: int = LOCAL_STORE_BYTES) -> None:
    """Start Ray on this machine ("local") or join a cluster; nothing when a session is already open.

    A local Ray counts at least 8 logical CPUs: `Pool.threads` bounds the real ones, and reading needs some of its own.
    """
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_worker_niceness", "0")  # 15 by default: any other program would starve the workers
    common: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address == "local":
        cpus = max(8, os.cpu_count() or 1)
        common |= {"num_cpus": cpus, "object_store_memory": store_bytes, "include_dashboard": False}
    for attempt in range(START_ATTEMPTS):
        try:
            with handler_kept(signal.SIGTERM):
                ray.init(address, **common)
            return
        except ConnectionError as error:
            raise RuntimeError(
                f"no Ray cluster answers at {address!r}: start one (`ray start --head`), or set line.address to local"
            ) from error
        except Exception as error:
            ray.shutdown()
            if attempt == START_ATTEMPTS - 1:
                raise RuntimeError(f"Ray did not start: {error}") from error


def configure_data() -> None:
    """How Ray Data treats failures: a lost block never stops the line, the ledger finds what it held."""
    context = DataContext.get_current()
    context.max_errored_blocks = -1
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)


def preflight(config: FactoryConfig) -> None:
    """Find out before anything starts whether this machine has the GPU and weights that the settings ask for.

    Raises:
        RuntimeError: in one sentence that says what is missing and how to get it. On a cluster the actors find out.
        ValueError: the same of the fit's GPU.
    """
    if config.line.address != "local":
        return
    from model import weights
    from recon.device import device_of

    device_of(config.fit.device)
    for settings, folder in ((config.image, "image"), (config.video, "video")):
        weights.device_of(settings.device)
        place = weights.locate(settings.model, folder, settings.revision)
        if not any(place.rglob("*.safetensors")):
            raise RuntimeError(
                f"{place} holds no *.safetensors: the {folder} model {settings.model!r} is not there yet"
            )


def find_weights(config: FactoryConfig) -> Weights:
    """Check as `preflight` does, and the revisions of the weights: on a cluster as a node of the image stage has them.

    Raises:
        RuntimeError: if something is missing.
    """
    preflight(config)
    if config.line.address == "local":
        return weights_of(config)
    start_ray(config.line.address)
    pool = config.line.image
    return ray.get(ray.remote(num_cpus=pool.cpus, num_gpus=pool.gpus)(weights_of).remote(config))
