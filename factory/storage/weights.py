"""Let a process read weights at s3:// as the settings reach s3://: `read_weights_by`."""

from __future__ import annotations

from functools import partial

from factory.storage.interface import StorageConfig


def read_weights_by(storage: StorageConfig) -> None:
    """From here on, in this process, `model.weights` opens addresses with this endpoint, region and role."""
    from factory.storage.store import pyarrow_filesystem
    from model.remote import read_by

    read_by(partial(pyarrow_filesystem, config=storage))
