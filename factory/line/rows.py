"""Turn rows of an Arrow table into dictionaries and back, other columns untouched: `rows_of`, `with_columns`.

Columns of type large_binary hold pictures, videos and files. They become memory views of the table's own bytes, and
only those that are asked for; a column whose values are still the same objects afterwards is kept as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

Row = dict[str, Any]


def rows_of(table: pa.Table, large: Collection[str] = ()) -> list[Row]:
    """The rows with every small column, in order, and the columns `large` of type large_binary, where there are any."""
    names = table.column_names
    rows = table.select([name for name in names if not is_large(table.schema.field(name))]).to_pylist()
    for name in large:
        if name in names and is_large(table.schema.field(name)):
            for row, value in zip(rows, _views(table.column(name)), strict=True):
                row[name] = value
    return rows


def _views(column: pa.ChunkedArray) -> Iterator[memoryview | None]:
    """The values of a column of type large_binary where they lie; its scalars would be copies."""
    for chunk in column.chunks:
        _, places, data = chunk.buffers()
        offsets = np.frombuffer(places, np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
        bytes_ = memoryview(data or b"")
        for start, end, valid in zip(offsets[:-1], offsets[1:], chunk.is_valid().to_pylist()):
            yield bytes_[start:end] if valid else None


def is_large(field: pa.Field) -> bool:
    """Whether a column travels between the stages only, and is no column of a published table."""
    return pa.types.is_large_binary(field.type)


def with_columns(
    table: pa.Table,
    rows: Sequence[Row],
    before: Sequence[Row],
    fields: Iterable[pa.Field],
    refuse: Callable[[Row, Exception], None],
) -> pa.Table:
    """The table with these columns of the rows appended, or replaced where they have changed.

    Args:
        before: the rows as `rows_of` gave them; their dictionaries must be other ones.
        refuse: called with a row whose value is none of the field's type; null is written for it.
    """
    for field in fields:
        place = table.schema.get_field_index(field.name)
        if place >= 0 and all(row.get(field.name) is old.get(field.name) for row, old in zip(rows, before)):
            continue
        column = _column(field, rows, refuse)
        table = table.append_column(field, column) if place < 0 else table.set_column(place, field, column)
    return table


def _column(field: pa.Field, rows: Sequence[Row], refuse: Callable[[Row, Exception], None]) -> pa.Array:
    try:
        return pa.array([row.get(field.name) for row in rows], field.type)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return pa.array([_checked(field, row, refuse) for row in rows], field.type)


def _checked(field: pa.Field, row: Row, refuse: Callable[[Row, Exception], None]) -> Any:
    """The row's value, or None after `refuse` where it has another type."""
    value = row.get(field.name)
    try:
        pa.array([value], field.type)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        refuse(row, ValueError(f"column {field.name} wants {field.type}, no {type(value).__name__}: {error}"))
        return None
    return value
