"""Rows of a table as found, one by one or as columns: `Raw`, `Batch`; and what is said of tables that are none."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from recon.user_error import UserError


@dataclass(kw_only=True, slots=True)
class Raw:
    """One row as found: `values` by column, or `error` where the row itself cannot be read."""

    number: int
    """Position in the table, from 1."""
    values: dict[str, Any]
    error: str | None = None


@dataclass(kw_only=True, slots=True)
class Batch:
    """Rows as columns, as columnar files hold them."""

    first: int
    """Position of its first row in the table, from 1."""
    columns: pa.RecordBatch
    constants: dict[str, Any] = field(default_factory=dict)
    """Columns that have one value for all rows: those of hive partitions."""

    def rows(self) -> Iterator[Raw]:
        """The rows one by one; a text that is no UTF-8 is the error of its row alone."""
        columns = {name: _binary(self.columns.column(i)) for i, name in enumerate(self.columns.schema.names)}
        for place in range(self.columns.num_rows):
            values, error = dict(self.constants), None
            for name, (column, is_text) in columns.items():
                try:
                    value = column[place].as_py()
                    values[name] = value.decode("utf-8") if is_text and value is not None else value
                except UnicodeDecodeError as broken:
                    error = error or f"column {name}: {reason_of(broken)}"
                except (ValueError, OverflowError) as strange:  # a time that Python has no word for
                    error = error or f"column {name}: {strange}"
            yield Raw(number=self.first + place, values=values, error=error)


def _binary(column: Any) -> tuple[Any, bool]:
    """The column, text as bytes so that one bad string costs its own row only; and whether it was text."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type):
        return column.view(pa.binary()), True
    if pa.types.is_large_string(column.type):
        return column.view(pa.large_binary()), True
    if pa.types.is_string_view(column.type):
        return column.cast(pa.binary_view()), True
    return column, False


def reason_of(error: Exception) -> str:
    """Why a row cannot be read."""
    return (
        f"invalid UTF-8: {error.reason} at byte {error.start}" if isinstance(error, UnicodeDecodeError) else str(error)
    )


def check_header(uri: str, names: Sequence[str], text_column: str, wanted: Sequence[str] | None) -> None:
    """The text column must be there, and what the caller looks at must come once; other columns may repeat."""
    again = [name for name in repeated(names) if (wanted is None and name) or name in (wanted or ())]
    if again:
        raise UserError(f"{uri}: column {again[0]!r} comes {list(names).count(again[0])} times; keep one")
    if text_column not in names:
        raise missing_column(uri, text_column, names)


def repeated(names: Iterable[str]) -> list[str]:
    """Names that come more than once."""
    return [name for name, count in Counter(names).items() if count > 1]


def missing_column(uri: str, column: str, names: Iterable[str]) -> UserError:
    """The error of a table whose columns have `names` but not `column`, with the nearest of them."""
    names = list(map(str, names))
    for mark, way in ((";", "save it with commas"), ("|", "save it with commas"), ("\t", "end its name in .tsv")):
        if len(names) == 1 and column in [word.strip(' "') for word in names[0].split(mark)[:100]]:
            return UserError(f"{uri}: its columns are separated by {mark!r}: {way}")
    plain = {name.strip().lower(): name for name in names}
    if near := difflib.get_close_matches(column, plain, 1):
        return UserError(f"{uri}: no column {column!r}; did you mean {plain[near[0]]!r}? Rename it to {column!r}")
    return UserError(f"{uri}: no column {column!r}. Available: {', '.join(names)[:500]}")
