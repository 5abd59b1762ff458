"""Tell damaged files of an output folder from whole ones: `DamagedFile`, `read_parquet`."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from factory.storage.interface import ReadableStore, StorageError

DAMAGED = "damaged"
"""Damaged files are moved below this folder, under their own names."""


class DamagedFile(Exception):
    """A file of an output folder that cannot be read, however often: `name` in the folder, and the `reason`."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} is damaged: {reason}")
        self.name, self.reason = name, reason


def read_parquet(store: ReadableStore, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a part or commit record, its page checksums compared.

    Args:
        columns: the only ones that are read; None: all.

    Raises:
        KeyError: when there is no such object. StorageError: when the storage fails.
        DamagedFile: when its bytes are no whole parquet file whose first column holds ids.
    """
    try:
        table = _table(io.BytesIO(store.get(name)), columns)
    except StorageError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise DamagedFile(name, str(error).partition("\n")[0][:200]) from error
    return table


def _table(stream: io.BytesIO, columns: Sequence[str] | None) -> pa.Table:
    file = pq.ParquetFile(stream, page_checksum_verification=True)
    if not file.schema_arrow.names or not pa.types.is_string(file.schema_arrow.field(0).type):
        raise pa.ArrowInvalid("its first column holds no ids")
    return file.read(columns=None if columns is None else list(columns))
