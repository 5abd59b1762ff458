"""Read parquet and Arrow files a bounded piece at a time: `columnar_batches`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from factory.prompts.raw_rows import Batch, check_header
from factory.prompts.table_files import LFS_POINTER, TableFile
from factory.storage.credentials import scrub
from recon.user_error import UserError

BATCH_BYTES, BATCH_ROWS, SMALL_ROWS = 64 << 20, 256, 4096
"""So much of a file is decoded at a time, by its own word on its size; so many rows, and of small ones."""
SMALL_BYTES = 1024


def columnar_batches(
    file: TableFile, stream: Any, first: int, text_column: str, wanted: Sequence[str] | None
) -> Iterator[Batch]:
    """The rows of a parquet or Arrow file.

    Args:
        first: number of its first row in the table. text_column: must be there.
        wanted: the only columns that are decoded; None: all.

    Raises:
        UserError: when it is no such file, is damaged, lacks `text_column` or has two columns of one name.
    """
    reader = _parquet if file.kind == "parquet" else _arrow
    constants: dict[str, Any] = {
        name: value for name, value in file.partitions.items() if wanted is None or name in wanted
    }
    if stream.read(len(LFS_POINTER)) == LFS_POINTER:
        raise UserError(f"{file.uri} is a pointer of Git LFS: fetch the file itself with `git lfs pull`")
    stream.seek(0)
    try:
        for batch in reader(file, stream, text_column, wanted):
            own = {name: value for name, value in constants.items() if name not in batch.schema.names}
            yield Batch(first=first, columns=batch, constants=own)
            first += batch.num_rows
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{file.uri}: not a readable {file.kind} file: {scrub(str(error))}") from error


def _parquet(file: TableFile, stream: Any, text_column: str, wanted: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
    parquet = pq.ParquetFile(stream, buffer_size=1 << 20, page_checksum_verification=True)
    names = parquet.schema_arrow.names
    check_header(file.uri, [*names, *file.partitions.keys() - set(names)], text_column, wanted)
    known = [name for name in names if wanted is None or name in wanted]
    for group in range(parquet.num_row_groups):
        about = parquet.metadata.row_group(group)
        row_bytes = about.total_byte_size / max(1, about.num_rows)
        most = SMALL_ROWS if row_bytes <= SMALL_BYTES else BATCH_ROWS
        size = min(max(1, int(BATCH_BYTES / max(row_bytes, 1))), most)
        yield from parquet.iter_batches(size, row_groups=[group], columns=known, use_threads=False)


def _arrow(file: TableFile, stream: Any, text_column: str, wanted: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
    """Record batches as they were written: HF `datasets` writes 1,000 rows each."""
    head = stream.read(6)
    stream.seek(0)
    reader = pa.ipc.open_file(stream) if head == b"ARROW1" else pa.ipc.open_stream(stream)
    check_header(file.uri, [*reader.schema.names, *file.partitions], text_column, wanted)
    known = [name for name in reader.schema.names if wanted is None or name in wanted]
    batches = (reader.get_batch(i) for i in range(reader.num_record_batches)) if head == b"ARROW1" else reader
    for batch in batches:
        chosen = batch.select(known)
        for start in range(0, chosen.num_rows, SMALL_ROWS):
            yield chosen.slice(start, SMALL_ROWS)
