"""Check whole columns of prompts at once, where nothing about them is odd: `plain_rows`.

What is not plain goes through `factory.prompts.row.check_row`, row by row; both give the same prompts.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from factory.ledger.keys import ID_PATTERN, digest
from factory.prompts.raw_rows import Batch
from factory.prompts.row import CONTROL, ID_COLUMNS, MAX_PROMPT_BYTES, seed_of

pc: Any = pyarrow.compute  # its functions are made when it is imported
_NO_IMAGE = hashlib.blake2b(b"").hexdigest()


@dataclass(kw_only=True, slots=True)
class PlainRows:
    """Prompts of a batch, without pictures: columns of equal length."""

    ids: pa.Array
    prompts: pa.Array
    seeds: pa.Array
    places: NDArray[np.int64]
    """In the batch, ascending."""


def plain_rows(batch: Batch) -> PlainRows | None:
    """The rows of a batch that can be used as they are; None where its columns must be looked at one by one."""
    columns = {name: batch.columns.column(i) for i, name in enumerate(batch.columns.schema.names)}
    if batch.constants or "prompt" not in columns:
        return None
    try:
        prompts, ids, seeds = _texts(columns["prompt"]), _ids(columns), _seeds(columns)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # no UTF-8, numbers that are not whole, other types
        return None
    plain = _good_prompts(prompts)
    plain = pc.and_(
        plain, pc.or_kleene(pc.is_null(ids), pc.match_substring_regex(ids, rf"\A(?:{ID_PATTERN.pattern})\z"))
    )
    plain = pc.and_(plain, pc.or_kleene(pc.is_null(seeds), pc.greater_equal(seeds, 0)))
    for name in columns.keys() & {"image", "size_metres"}:
        plain = pc.and_(plain, pc.is_null(columns[name]))
    mask = pc.fill_null(plain, False).to_numpy(zero_copy_only=False)
    places = np.flatnonzero(mask)
    prompts, ids, seeds = (column.filter(pa.array(mask)) for column in (prompts, ids, seeds))
    ids, seeds = _derived(prompts, ids, seeds)
    return PlainRows(ids=ids, prompts=prompts, seeds=seeds, places=places)


def _texts(column: Any) -> pa.Array:
    """A column of text as `string`; ArrowInvalid for what is no UTF-8, ArrowNotImplementedError for other types."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise pa.ArrowNotImplementedError(f"no text but {column.type}")
    column.validate(full=True)
    return column.cast(pa.string())


def _ids(columns: dict[str, Any]) -> pa.Array:
    """Given ids as text, null where a row gives none."""
    found = []
    for name in ID_COLUMNS:
        column = columns.get(name)
        if column is None:
            continue
        if pa.types.is_floating(column.type):
            column = column.cast(pa.float64())
            column = pc.if_else(pc.is_nan(column), None, column).cast(pa.int64())  # raises for 1.5
        text = column.cast(pa.string()) if pa.types.is_integer(column.type) else _texts(column)
        found.append(pc.if_else(pc.equal(text, ""), None, text))
    return pc.coalesce(*found) if found else pa.nulls(len(columns["prompt"]), pa.string())


def _seeds(columns: dict[str, Any]) -> pa.Array:
    column = columns.get("seed")
    if column is None:
        return pa.nulls(len(columns["prompt"]), pa.int64())
    if not (pa.types.is_integer(column.type) or pa.types.is_null(column.type)):
        raise pa.ArrowNotImplementedError(f"no whole numbers but {column.type}")
    return column.cast(pa.int64())


def _good_prompts(prompts: pa.Array) -> Any:
    """Which need no change: trimmed, 1 to MAX_PROMPT_BYTES bytes, without control characters."""
    length = pc.binary_length(prompts)
    good = pc.and_(pc.greater(length, 0), pc.less_equal(length, MAX_PROMPT_BYTES))
    good = pc.and_(good, pc.equal(pc.utf8_trim_whitespace(prompts), prompts))
    return pc.and_(good, pc.invert(pc.match_substring_regex(prompts, CONTROL)))


def _derived(prompts: pa.Array, ids: pa.Array, seeds: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Ids and seeds with those of rows that give none, as `check_row` derives them."""
    if not ids.null_count and not seeds.null_count:
        return ids, seeds
    names, numbers = ids.to_pylist(), seeds.to_pylist()
    texts = prompts.to_pylist() if ids.null_count else [""] * len(names)
    for place, (name, number) in enumerate(zip(names, numbers, strict=True)):
        if number is None:
            numbers[place] = number = seed_of(name or digest(texts[place], _NO_IMAGE))
        if name is None:
            names[place] = digest(texts[place], str(number))
    return pa.array(names, pa.string()), pa.array(numbers, pa.int64())
