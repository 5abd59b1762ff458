"""Prompts that wait on disk instead of in memory, however many: `PromptRows`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from factory.ledger.keys import Keys, packed
from factory.prompts.row import Prompt
from factory.prompts.spool import Spool, Spooled, temporary_space

ROWS_AT_A_TIME = 1 << 16
"""Rows that are in memory until they are written, and that are read together."""
_SCHEMA = pa.schema(
    [
        pa.field("prompt_id", pa.string(), False),
        pa.field("prompt", pa.string(), False),
        pa.field("seed", pa.int64(), False),
        ("size_metres", pa.float64()),
        ("start", pa.int64()),  # of the picture in the spool
        ("size", pa.int64()),
    ]
)


class PromptRows(Sequence[Prompt]):
    """Prompts in a temporary file (in TMPDIR) that goes with them; their keys alone are in memory.

    Fill it with `add` and `extend`, then call `close`; read it afterwards.

    Attributes:
        keys: of the ids [N,2], after `close`.
        numbers: where each stands in its table, from 1, [N].
    """

    def __init__(self, spool: Spool | None = None) -> None:
        self.spool = spool or Spool()
        self.keys: Keys = np.empty((0, 2), np.uint64)
        self.numbers: NDArray[np.int64] = np.empty(0, np.int64)
        self._file = tempfile.NamedTemporaryFile(prefix="im3d-prompts-")  # noqa: SIM115 - open as long as the rows
        self._writer: Any = pa.ipc.new_file(self._file.name, _SCHEMA)
        self._rows: list[tuple[Any, ...]] = []
        self._batches: list[pa.RecordBatch] = []
        self._keys: list[Keys] = []
        self._numbers: list[NDArray[np.int64]] = []
        self._chunks: list[pa.RecordBatch] = []  # in the file, mapped
        self._starts: NDArray[np.int64] = np.empty(0, np.int64)
        self._places: NDArray[np.int64] | None = None  # of the table's rows that were not dropped; None: all

    @classmethod
    def of(cls, prompts: Sequence[Prompt]) -> PromptRows:
        """Prompts whose pictures, if any, lie in one spool; those that are here already as they are."""
        if isinstance(prompts, PromptRows):
            return prompts
        rows = cls(next((prompt.picture.spool for prompt in prompts if prompt.picture), None))
        for number, prompt in enumerate(prompts, 1):
            rows.add(prompt, number)
        return rows.close()

    def add(self, prompt: Prompt, number: int) -> None:
        """Keep a prompt, and its number in the table."""
        picture = prompt.picture
        if picture and picture.spool is not self.spool:
            picture = self.spool.add(picture.read())
        place = (picture.start, picture.size) if picture else (None, None)
        self._rows.append((prompt.prompt_id, prompt.prompt, prompt.seed, prompt.size_metres, *place, number))
        if len(self._rows) >= ROWS_AT_A_TIME:
            self._settle()

    def extend(self, ids: pa.Array, prompts: pa.Array, seeds: pa.Array, numbers: NDArray[np.int64]) -> None:
        """Keep prompts without pictures and sizes: columns of equal length, without nulls."""
        self._settle()
        nothing = [pa.nulls(len(ids), field.type) for field in [*_SCHEMA][3:]]
        self._put(pa.record_batch([ids, prompts, seeds, *nothing], schema=_SCHEMA), numbers)

    def close(self) -> PromptRows:
        """Write what is left; the rows can be read now."""
        self._settle()
        self._write()
        self._writer.close()
        self.keys = np.concatenate([self.keys, *self._keys])
        self.numbers = np.concatenate([self.numbers, *self._numbers])
        self._keys, self._numbers = [], []
        reader = pa.ipc.open_file(pa.memory_map(self._file.name))
        self._chunks = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        self._starts = np.cumsum([0, *(chunk.num_rows for chunk in self._chunks)])[:-1]
        return self

    @property
    def ids(self) -> PromptIds:
        """The ids, in order, read from disk when they are asked for."""
        return PromptIds(self)

    def drop(self, places: NDArray[np.int64]) -> None:
        """Leave out rows, by their places."""
        kept = np.delete(np.arange(len(self)), places)
        self._places = kept if self._places is None else self._places[kept]
        self.keys, self.numbers = self.keys[kept], self.numbers[kept]

    def take(self, places: Sequence[int] | NDArray[np.int64]) -> pa.Table:
        """Rows as columns: those of `Prompt`, and `picture`, encoded as it came, or null."""
        table = self._rows_at(np.asarray(places, np.int64))
        where = zip(table["start"].to_pylist(), table["size"].to_pylist(), strict=True)
        pictures = [None if start is None else self.spool.read(start, size) for start, size in where]
        return table.drop_columns(["start", "size"]).append_column("picture", pa.array(pictures, pa.large_binary()))

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, place: int) -> Prompt: ...
    @overload
    def __getitem__(self, place: slice) -> list[Prompt]: ...
    def __getitem__(self, place: int | slice) -> Prompt | list[Prompt]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        place = range(len(self))[place]
        return self._prompt(self._rows_at(np.array([place])).to_pylist()[0])

    def __iter__(self) -> Iterator[Prompt]:
        for start in range(0, len(self), ROWS_AT_A_TIME):
            places = np.arange(start, min(start + ROWS_AT_A_TIME, len(self)))
            yield from map(self._prompt, self._rows_at(places).to_pylist())

    def _rows_at(self, places: NDArray[np.int64]) -> pa.Table:
        if self._places is not None:
            places = self._places[places]
        which = np.searchsorted(self._starts, places, "right") - 1
        order = np.argsort(which, kind="stable")
        parts = [  # not `take` of a whole table, which would copy all of it
            self._chunks[chunk].take(pa.array(places[which == chunk] - self._starts[chunk]))
            for chunk in np.unique(which)
        ]
        table = pa.Table.from_batches(parts, _SCHEMA).combine_chunks()
        return table if (order[1:] > order[:-1]).all() else table.take(pa.array(np.argsort(order)))

    def _prompt(self, row: dict[str, Any]) -> Prompt:
        start, size = row.pop("start"), row.pop("size")
        picture = None if start is None else Spooled(spool=self.spool, start=start, size=size)
        return Prompt(**row, picture=picture)

    def _settle(self) -> None:
        """Make columns of single rows."""
        if self._rows:
            *columns, numbers = zip(*self._rows, strict=True)
            arrays = [pa.array(column, field.type) for column, field in zip(columns, _SCHEMA, strict=True)]
            self._rows = []
            self._put(pa.record_batch(arrays, schema=_SCHEMA), np.array(numbers))

    def _put(self, batch: pa.RecordBatch, numbers: NDArray[np.int64]) -> None:
        self._batches.append(batch)
        self._keys.append(packed(batch.column(0).to_pylist()))
        self._numbers.append(numbers)
        if sum(one.num_rows for one in self._batches) >= ROWS_AT_A_TIME:
            self._write()

    def _write(self) -> None:
        if self._batches:
            table = pa.Table.from_batches(self._batches, _SCHEMA).combine_chunks()
            with temporary_space():
                self._writer.write_table(table)
            self._batches = []


class PromptIds:
    """The ids of prompts, by place, with their keys."""

    def __init__(self, rows: PromptRows) -> None:
        self.rows, self.keys = rows, rows.keys

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> str:
        return self.rows[place].prompt_id
