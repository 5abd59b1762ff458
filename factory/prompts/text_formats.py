"""Read txt, csv, tsv and jsonl line by line, packed or not, bad rows kept as bad rows: `text_rows`."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from factory.prompts.raw_rows import Raw, check_header, reason_of, repeated
from factory.prompts.table_files import LFS_POINTER, TableFile
from factory.storage.credentials import scrub
from recon.user_error import UserError

MAX_LINE_BYTES = 4 << 20
"""A line of text becomes up to thirty times as much memory once it is parsed."""
HEAD_BYTES = 1 << 16
"""So much of a file tells how its lines end, and what it is."""
_TOO_LONG = f"longer than {MAX_LINE_BYTES >> 20} MiB; shorten it"
_ARRAY = re.compile(rb"(\xef\xbb\xbf)?\s*\[\s*(\{|\n)")
"""How a file starts that holds its rows in one array; a single row that is a list starts otherwise."""
_OTHERS = {  # first bytes of files that are no text
    b"\x1f\x8b": "is gzip-compressed: end its name in .gz",
    b"\x28\xb5\x2f\xfd": "is zstd-compressed: end its name in .zst",
    b"PK\x03\x04": "is a zip archive, as xlsx files are: save the table as CSV",
    b"\xd0\xcf\x11\xe0": "is an old Excel file: save the table as CSV",
    b"PAR1": "is a parquet file: end its name in .parquet",
    b"ARROW1": "is an Arrow file: end its name in .arrow",
    b"%PDF": "is a PDF; give a table",
    b"SQLite format 3": "is an SQLite database: export the table as CSV",
    b"\xff\xfe\0\0": "is UTF-32: save it as UTF-8",
    b"\xff\xfe": "is UTF-16: save it as UTF-8",
    b"\xfe\xff": "is UTF-16: save it as UTF-8",
    LFS_POINTER: "is a pointer of Git LFS: fetch the file itself with `git lfs pull`",
    b"<!doctype html": "is a web page: fetch the table itself",
    b"<html": "is a web page: fetch the table itself",
}


def text_rows(file: TableFile, stream: Any, first: int, column: str, wanted: Sequence[str] | None) -> Iterator[Raw]:
    """The rows of a text file, a line in memory at a time.

    Args:
        stream: its bytes, packed as `file` says. first: number of its first row in the table.
        column: what a line of a txt file stands for; csv and tsv files must have it.
        wanted: the only columns that the caller looks at.

    Raises:
        UserError: when the file is of another format, its first line cannot be read or lacks `column`, a quote is never
            closed, or its compression is damaged.
    """
    try:
        if file.packing:
            stream = pa.CompressedInputStream(stream, file.packing)
        buffer = _Readable.buffered(stream)
        for place, row in enumerate(_rows(file, buffer, column, wanted)):
            row.number = first + place
            row.values |= {name: value for name, value in file.partitions.items() if name not in row.values}
            yield row
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{file.uri}: cannot be read: {scrub(str(error))}") from error


def _rows(file: TableFile, buffer: io.BufferedReader, column: str, wanted: Sequence[str] | None) -> Iterator[Raw]:
    head = _head(buffer)
    for magic, what in _OTHERS.items():
        if head[: len(magic)].lower() == magic.lower():
            raise UserError(f"{file.uri} {what}")
    returns, both, feeds = head.count(b"\r"), head.count(b"\r\n"), head.count(b"\n")
    if returns - both >= max(feeds, feeds - both + 1):  # lines end as on old Macs
        buffer = _CarriageReturns.buffered(buffer)
    if file.kind == "jsonl":
        if _ARRAY.match(head):
            raise UserError(f"{file.uri}: a JSON array; write one object a line, as `jq -c '.[]'` does")
        return _lines(buffer, _json_values, {})
    if file.kind == "txt":
        return _lines(buffer, lambda line: {column: line.decode("utf-8")}, {column: ""})
    return _csv_rows(file, buffer, column, wanted)


def _head(buffer: io.BufferedReader) -> bytes:
    """What a file begins with; the next read begins there too."""
    return buffer.peek(HEAD_BYTES)[:HEAD_BYTES]


def _lines(buffer: io.BufferedReader, parse: Callable[[bytes], dict[str, Any]], blank: dict[str, Any]) -> Iterator[Raw]:
    """Rows, a line each; blank lines at the end are no rows."""
    blanks, first = 0, True
    for line in _bounded_lines(buffer):
        if line is not None:
            line = (line.removeprefix(codecs.BOM_UTF8) if first else line).rstrip(b"\r\n")
            if not line.strip():
                blanks, first = blanks + 1, False
                continue
        for _ in range(blanks):
            yield Raw(number=0, values=dict(blank))
        blanks, first = 0, False
        if line is None:
            yield Raw(number=0, values={}, error=_TOO_LONG)
            continue
        try:
            yield Raw(number=0, values=parse(line))
        except (ValueError, RecursionError) as error:
            yield Raw(number=0, values={}, error=reason_of(error))


def _bounded_lines(buffer: io.BufferedReader) -> Iterator[bytes | None]:
    """Lines with their ends; None in place of a longer one than MAX_LINE_BYTES, which is skipped."""
    while line := buffer.readline(MAX_LINE_BYTES):
        if len(line) < MAX_LINE_BYTES or line.endswith(b"\n"):
            yield line
            continue
        while (rest := buffer.readline(1 << 20)) and not rest.endswith(b"\n"):
            pass
        yield None


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
        raise ValueError(f"key {repeated(name for name, _ in pairs)[0]!r} comes twice; keep one")
    return values


def _csv_rows(file: TableFile, buffer: io.BufferedReader, column: str, wanted: Sequence[str] | None) -> Iterator[Raw]:
    csv.field_size_limit(MAX_LINE_BYTES)
    reader = csv.DictReader(_CsvText(buffer), delimiter="\t" if file.kind == "tsv" else ",", strict=True)
    try:
        names = reader.fieldnames
    except csv.Error as error:
        unclosed = "unexpected end" in str(error)
        what = "a quote opened in the first line is never closed" if unclosed else f"the first line is {error}"
        raise UserError(f"{file.uri}: {what}; it must name the columns") from error
    if names and any("\0" in name for name in names):
        raise UserError(f"{file.uri}: not UTF-8 text; save the table as UTF-8")
    if names:
        check_header(file.uri, [*names, *file.partitions.keys() - set(names)], column, wanted)
    number = 0
    while True:
        number += 1
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end" in str(error):
                raise UserError(f"{file.uri}: a quote opened in row {number} is never closed; close it") from error
            reason = str(error) if _TOO_LONG in str(error) else f"badly quoted: {error}"
            yield Raw(number=0, values={}, error=reason)
            continue
        extra = values.pop(None, None)  # type: ignore[call-overload]
        error = f"{len(extra)} more cells than the header has columns; quote commas" if extra else None
        yield Raw(number=0, values=dict(values), error=error)


class _CsvText:
    """The text of a csv file, line by line; a line that is too long is an error of its row."""

    def __init__(self, buffer: io.BufferedReader) -> None:
        self._lines = _bounded_lines(buffer)
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


class _Readable(io.RawIOBase):
    """A stream that has `read` as a raw Python stream."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    @classmethod
    def buffered(cls, stream: Any) -> io.BufferedReader:
        """The stream with lines and a look ahead."""
        return io.BufferedReader(cls(stream), 1 << 20)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _CarriageReturns(_Readable):
    """A text whose lines end in a carriage return alone, with ends of today."""

    def readinto(self, buffer: Any) -> int:
        data = self.stream.read(len(buffer)).replace(b"\r", b"\n")
        buffer[: len(data)] = data
        return len(data)
