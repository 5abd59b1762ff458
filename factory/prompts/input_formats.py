"""Read the rows of a table on disk or S3, one file or many, bad rows too: `read_rows`, `read_pieces`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from factory.prompts.raw_rows import Batch, Raw
from factory.prompts.table_files import FORMATS, TableFile, table_files
from factory.storage.credentials import scrub
from factory.storage.interface import StorageConfig
from recon.user_error import UserError


def read_rows(
    uri: str, text_column: str = "prompt", storage: StorageConfig | None = None, columns: Sequence[str] | None = None
) -> Iterator[Raw]:
    """Yield the rows of a table, one by one; as `read_pieces`."""
    for piece in read_pieces(uri, text_column, storage, columns):
        if isinstance(piece, Raw):
            yield piece
        else:
            yield from piece.rows()


def read_pieces(
    uri: str, text_column: str = "prompt", storage: StorageConfig | None = None, columns: Sequence[str] | None = None
) -> Iterator[Raw | Batch]:
    """Yield the rows of a table: those of text one by one, those of columnar files as batches.

    Args:
        uri: local path or s3:// address of a file, a folder of shards or a pattern, see `table_files`.
        text_column: the column that a line of a txt file stands for; other formats must have it.
        storage: how s3:// is reached.
        columns: the only ones that the caller looks at, so that others need not be decoded; they may come all the same.

    Raises:
        UserError: when a file is missing, has another suffix, is no table of its format at all, lacks `text_column`
            or has two columns of one name.
    """
    from factory.prompts.columnar_formats import columnar_batches
    from factory.prompts.text_formats import text_rows

    first = 1
    for file in table_files(uri, storage):
        read = columnar_batches if file.kind in ("parquet", "arrow") else text_rows
        with _open(file) as stream:
            for piece in read(file, stream, first, text_column, columns):
                first += 1 if isinstance(piece, Raw) else piece.columns.num_rows
                yield piece


def _open(file: TableFile) -> Any:
    """A seekable binary stream on a file."""
    try:
        return file.filesystem.open_input_file(file.path)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UserError(f"{file.uri}: no such file; give a .{', .'.join(FORMATS)} file") from error
    except OSError as error:
        raise UserError(f"{file.uri}: cannot be read: {scrub(str(error))}") from error
