"""Read the rows of a table, txt, csv, jsonl or parquet on disk or S3, bad rows too: `read_rows`."""

from __future__ import annotations

import codecs
import csv
import difflib
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from factory.storage.credentials import scrub
from factory.storage.store import StorageConfig, pyarrow_filesystem
from recon.user_error import UserError

FORMATS = ("txt", "csv", "jsonl", "parquet")
MAX_LINE_BYTES = 4 << 20
"""A line of text becomes up to thirty times as much memory once it is parsed."""
BATCH_BYTES, BATCH_ROWS = 64 << 20, 256
"""So much of a parquet file is decoded at a time, by its own word on its size."""


@dataclass(kw_only=True, slots=True)
class Raw:
    """One row as found: `values` by column, or `error` where the row itself cannot be read."""

    number: int
    """Position in the table, from 1."""
    values: dict[str, Any]
    error: str | None = None


def read_rows(
    uri: str, text_column: str = "prompt", storage: StorageConfig | None = None, columns: Sequence[str] | None = None
) -> Iterator[Raw]:
    """Yield the rows of a table, a bounded piece of it in memory at a time.

    Args:
        uri: local path or s3:// address that ends in .txt, .csv, .jsonl or .parquet.
        text_column: the column that a line of a txt file stands for; csv and parquet files must have it.
        storage: how s3:// is reached.
        columns: the only ones that the caller looks at, so that others need not be decoded; they may come all the same.

    Raises:
        ValueError: when the file is missing, has another suffix, is no table of its format at all, lacks `text_column`
            or has two columns of one name.
    """
    suffix = uri.rsplit(".", 1)[-1].lower() if "." in uri.rsplit("/", 1)[-1] else ""
    if suffix not in FORMATS:
        raise UserError(f"{uri}: format {suffix!r} is not supported. Available: {', '.join(FORMATS)}")
    with _open(uri, storage) as stream:
        if suffix == "parquet":
            yield from _parquet_rows(uri, stream, text_column, columns)
        elif suffix == "csv":
            yield from _csv_rows(uri, stream, text_column, columns)
        elif suffix == "jsonl":
            yield from _json_rows(uri, stream)
        else:
            yield from _lines(stream, _text_values(text_column))


def _open(uri: str, storage: StorageConfig | None):
    """A seekable binary stream on a local path or an s3:// address."""
    filesystem, path = pyarrow_filesystem(uri, storage)
    try:
        return filesystem.open_input_file(path)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UserError(f"{uri}: no such file; give a .{', .'.join(FORMATS)} file") from error
    except OSError as error:
        raise UserError(f"{uri}: cannot be read: {scrub(str(error))}") from error


def _lines(stream, parse) -> Iterator[Raw]:
    """Rows of a text file, a line each; blank lines at the end are no rows."""
    blanks = 0
    number = 0
    for line in _bounded_lines(stream):
        if line is None:
            number, blanks = number + blanks + 1, 0
            yield Raw(number=number, values={}, error=_TOO_LONG)
            continue
        line = line.removeprefix(codecs.BOM_UTF8) if number + blanks == 0 else line
        line = line.rstrip(b"\r\n")
        if not line.strip():
            blanks += 1
            continue
        for _ in range(blanks):
            number += 1
            yield Raw(number=number, values=parse(b"") if parse is not _json_values else {}, error=None)
        blanks, number = 0, number + 1
        try:
            yield Raw(number=number, values=parse(line))
        except (ValueError, RecursionError) as error:
            yield Raw(number=number, values={}, error=_reason(error))


_TOO_LONG = f"longer than {MAX_LINE_BYTES >> 20} MiB; shorten it"


def _bounded_lines(stream) -> Iterator[bytes | None]:
    """Lines with their ends; None in place of a longer one than MAX_LINE_BYTES, which is skipped."""
    buffer = io.BufferedReader(_Readable(stream), 1 << 20)
    while line := buffer.readline(MAX_LINE_BYTES):
        if len(line) < MAX_LINE_BYTES or line.endswith(b"\n"):
            yield line
            continue
        while (rest := buffer.readline(1 << 20)) and not rest.endswith(b"\n"):
            pass
        yield None


def _reason(error: Exception) -> str:
    return (
        f"invalid UTF-8: {error.reason} at byte {error.start}" if isinstance(error, UnicodeDecodeError) else str(error)
    )


def _text_values(column: str):
    return lambda line: {column: line.decode("utf-8")}


def _json_rows(uri: str, stream) -> Iterator[Raw]:
    if _ARRAY.match(stream.read(4096)):
        raise UserError(f"{uri}: a JSON array; write one object a line, as `jq -c '.[]'` does")
    stream.seek(0)
    return _lines(stream, _json_values)


_ARRAY = re.compile(rb"(\xef\xbb\xbf)?\s*\[\s*(\{|\n)")
"""How a file starts that holds its rows in one array; a single row that is a list starts otherwise."""


def _json_values(line: bytes) -> dict[str, Any]:
    try:
        values = json.loads(line.decode("utf-8"), object_pairs_hook=_unique_keys)
    except json.JSONDecodeError as error:
        raise ValueError(f"not a JSON object: {error}") from error
    except RecursionError as error:
        raise ValueError("not a JSON object: nested too deeply") from error
    if not isinstance(values, dict):
        raise ValueError(f"not a JSON object but a {type(values).__name__}")
    return values


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError(f"key {_repeated(name for name, _ in pairs)[0]!r} comes twice; keep one")
    return values


def _repeated(names: Iterable[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _check_header(uri: str, names: Sequence[str], text_column: str, wanted: Sequence[str] | None) -> None:
    """The text column must be there, and what the caller looks at must come once; other columns may repeat."""
    repeated = [name for name in _repeated(names) if (wanted is None and name) or name in (wanted or ())]
    if repeated:
        raise UserError(f"{uri}: column {repeated[0]!r} comes {list(names).count(repeated[0])} times; keep one")
    if text_column not in names:
        raise missing_column(uri, text_column, names)


def missing_column(uri: str, column: str, names: Iterable[str]) -> UserError:
    """The error of a table whose columns have `names` but not `column`, with the nearest of them."""
    names = list(map(str, names))
    plain = {name.strip().lower(): name for name in names}
    if near := difflib.get_close_matches(column, plain, 1):
        return UserError(f"{uri}: no column {column!r}; did you mean {plain[near[0]]!r}? Rename it to {column!r}")
    return UserError(f"{uri}: no column {column!r}. Available: {', '.join(names)}")


def _csv_rows(uri: str, stream, text_column: str, wanted: Sequence[str] | None) -> Iterator[Raw]:
    csv.field_size_limit(MAX_LINE_BYTES)
    reader = csv.DictReader(_CsvText(stream), strict=True)
    if reader.fieldnames and any("\0" in name for name in reader.fieldnames):
        raise UserError(f"{uri}: not UTF-8 text; save the table as UTF-8")
    if reader.fieldnames:
        _check_header(uri, reader.fieldnames, text_column, wanted)
    number = 0
    while True:
        number += 1
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end" in str(error):
                raise UserError(f"{uri}: a quote opened in row {number} is never closed; close it") from error
            reason = str(error) if _TOO_LONG in str(error) else f"badly quoted: {error}"
            yield Raw(number=number, values={}, error=reason)
            continue
        extra = values.pop(None, None)
        error = f"{len(extra)} more cells than the header has columns; quote commas" if extra else None
        yield Raw(number=number, values=dict(values), error=error)


class _CsvText:
    """The text of a csv file, line by line; a line that is too long is an error of its row."""

    def __init__(self, stream) -> None:
        self._lines = _bounded_lines(stream)
        self._first = True

    def __iter__(self) -> _CsvText:
        return self

    def __next__(self) -> str:
        line = next(self._lines)
        if line is None:
            raise csv.Error(_TOO_LONG)
        line = line.removeprefix(codecs.BOM_UTF8) if self._first else line
        self._first = False
        return line.decode("utf-8", "surrogateescape")


def _parquet_rows(uri: str, stream, text_column: str, wanted: Sequence[str] | None) -> Iterator[Raw]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(stream, buffer_size=1 << 20)
        names = file.schema_arrow.names
        _check_header(uri, names, text_column, wanted)
        known = [name for name in names if wanted is None or name in wanted]
        number = 0
        for group in range(file.num_row_groups):
            about = file.metadata.row_group(group)
            rows = BATCH_BYTES * about.num_rows // max(1, about.total_byte_size)
            size = min(max(1, rows), BATCH_ROWS)
            for batch in file.iter_batches(size, row_groups=[group], columns=known, use_threads=False):
                columns = {name: _binary(batch.column(i)) for i, name in enumerate(batch.schema.names)}
                for row in range(batch.num_rows):
                    number += 1
                    yield _parquet_row(number, columns, row)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{uri}: not a readable parquet file: {error}") from error


def _parquet_row(number: int, columns: dict[str, Any], row: int) -> Raw:
    values, error = {}, None
    for name, (column, is_text) in columns.items():
        try:
            value = column[row].as_py()
            values[name] = value.decode("utf-8") if is_text and value is not None else value
        except UnicodeDecodeError as broken:
            error = error or f"column {name}: {_reason(broken)}"
    return Raw(number=number, values=values, error=error)


def _binary(column):
    """The column, text as bytes so that one bad string costs its own row only; and whether it was text."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type):
        return column.view(pa.binary()), True
    if pa.types.is_large_string(column.type):
        return column.view(pa.large_binary()), True
    if pa.types.is_string_view(column.type):
        return column.cast(pa.binary_view()), True
    return column, False


class _Readable(io.RawIOBase):
    """A pyarrow stream as a raw Python stream."""

    def __init__(self, stream) -> None:
        self.stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        data = self.stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
