"""Let a process read weights at s3:// as the settings reach s3://: `read_weights_by`."""

from __future__ import annotations

from typing import Any

from factory.storage.interface import StorageConfig


def read_weights_by(storage: StorageConfig) -> None:
    """From here on, in this process, `model.weights` opens s3:// with this endpoint, region and role."""
    from factory.storage.store import pyarrow_filesystem
    from model.remote import by_environment, read_by

    def opened(address: str) -> tuple[Any, str]:
        return pyarrow_filesystem(address, storage) if address.startswith("s3://") else by_environment(address)

    read_by(opened)
