"""Read what an output folder holds, published or only committed, and write nothing: `LedgerReader`.

A run may go on meanwhile. Commit records are read before parts, so that a row that moves between them is seen; what
the run adds later is not.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from factory.ledger.commit_protocol import COMMITS, RECORD, is_dead, parquet_bytes, read_record
from factory.ledger.damage import DamagedFile, read_parquet
from factory.ledger.folder_format import check_format
from factory.ledger.keys import Keys, WorkIds, packed
from factory.ledger.snapshots import SnapshotReader, number_of, part_names, read_each
from factory.storage.interface import ReadableStore

ASSETS, RENDERS, SCORES, DEAD = "assets", "renders", "scores", "dead_letters"
log = logging.getLogger("factory")
Columns = Sequence[str] | Callable[[str], bool] | None


class LedgerReader:
    """The outcomes in an output folder.

    Args:
        store: the output folder; it keeps results of one kind.
        results: where they are published, as ASSETS.

    Attributes:
        done: keys with a result, published or committed.
        dead: keys with a dead letter, published or committed.
    """

    def __init__(self, store: ReadableStore, results: str = ASSETS) -> None:
        check_format(store)
        self.store, self.results = store, results
        self._pending: dict[str, pa.Table] = {}
        self._parts: dict[str, int] = {}
        self._snapshots = self._open_snapshots()
        # Before the parts: a writer may move some records meanwhile.
        records = list(self._new_records())
        self.done, self._parts[results] = self._snapshots[results].load()
        self.dead, self._parts[DEAD] = self._snapshots[DEAD].load()
        self._take(records)

    def __contains__(self, work_id: str) -> bool:
        return not len(self.missing([work_id]))

    def missing(self, work_ids: WorkIds) -> NDArray[np.int64]:
        """The places in `work_ids` of those that have no outcome."""
        return np.flatnonzero(~self._settled(packed(work_ids)))

    def is_dead(self, work_id: str) -> bool:
        """Whether the row ended as a dead letter."""
        return work_id in self.dead

    def rows(self, folder: str, columns: Columns = None, newest: int | None = None) -> Iterator[dict[str, Any]]:
        """Rows of the results or of DEAD: of parts in order of publication, then those that are only committed.

        Args:
            columns: by name, as `seed` or `image.path`, or those whose name is wanted, fields of structs as
                `image.path` among them; None: all. Rows lack what their part of the table does not have.
            newest: only so many, the last ones.
        """
        committed = list(self._committed(folder, columns))
        if newest is not None and len(committed) >= newest:
            yield from committed[len(committed) - newest :]
            return
        names, skip = self._part_names(folder), 0
        if newest is not None:
            names, skip = self._last_parts(names, newest - len(committed))
        for name in names:
            rows = self._part_rows(name, columns)
            yield from rows[skip:]
            skip = max(0, skip - len(rows))
        yield from committed

    def tables(self, folder: str, wanted: Callable[[str], bool]) -> Iterator[pa.Table]:
        """`rows` as a table for each part, its structs taken apart: `image.path` is a column."""
        for name in self._part_names(folder):
            part = self._part(name, wanted)
            if part is not None:
                yield part.flatten()
        for table in self._pending.values():
            if len(table) and is_dead(table) == (folder == DEAD):
                yield _table(io.BytesIO(parquet_bytes(table)), wanted).flatten()

    def _open_snapshots(self) -> Any:
        return {folder: SnapshotReader(self.store, folder, self._damaged) for folder in (self.results, DEAD)}

    def _part_names(self, folder: str) -> list[str]:
        """The parts that were there when the ledger was read."""
        return [name for name in part_names(self.store, folder) if number_of(name) < self._parts[folder]]

    def _part_rows(self, name: str, columns: Columns) -> list[dict[str, Any]]:
        part = self._part(name, columns)
        return [] if part is None else part.to_pylist()

    def _part(self, name: str, columns: Columns) -> pa.Table | None:
        """A part; None for dead letters that all run again, and for a damaged one."""
        try:
            with self.store.open(name) as stream:
                return _table(stream, columns)
        except KeyError:
            if name.startswith(f"{DEAD}/"):
                return None
            raise
        except (pa.ArrowException, OSError):  # damaged, or the connection broke: the whole file tells
            try:
                return _table(io.BytesIO(parquet_bytes(read_parquet(self.store, name))), columns)
            except DamagedFile as error:
                self._damaged(error)
                return None

    def _damaged(self, error: DamagedFile) -> None:
        """Say that a part or record is left out."""
        log.warning("%s/%s; its rows are left out here, `im3d check --repair` makes them again", self.store.root, error)

    def _committed(self, folder: str, columns: Columns) -> Iterator[dict[str, Any]]:
        """Rows of commit records, as a part would give them."""
        for table in self._pending.values():
            if len(table) and is_dead(table) == (folder == DEAD):
                yield from _rows(io.BytesIO(parquet_bytes(table)), columns)

    def _last_parts(self, names: list[str], rows: int) -> tuple[list[str], int]:
        """The last parts that hold so many rows together, and how many of their first rows are too many."""
        count, first = 0, len(names)
        while first and count < rows:
            first -= 1
            try:
                with self.store.open(names[first]) as stream:
                    count += pq.ParquetFile(stream).metadata.num_rows
            except (pa.ArrowException, OSError):
                count += len(self._part_rows(names[first], []))
        return names[first:], max(0, count - rows)

    def _settled(self, keys: Keys) -> Any:
        return self.done.find(keys) | self.dead.find(keys)

    def _new_records(self) -> Iterator[tuple[str, pa.Table]]:
        """Commit records that are not pending yet, by name."""
        names = [name for name in self.store.keys(f"{COMMITS}/") if RECORD.search(name) and name not in self._pending]
        return read_each(self.store, names, read_record, self._damaged)

    def _take(self, records: Iterable[tuple[str, pa.Table]]) -> None:
        """Keep what records settle that is not settled yet."""
        for name, table in records:
            keys = packed(table.column(0).to_pylist())
            fresh = ~self._settled(keys)
            self._pending[name] = table.filter(pa.array(fresh))
            (self.dead if is_dead(table) else self.done).add(keys[fresh])


def _rows(stream: Any, columns: Columns) -> list[dict[str, Any]]:
    return _table(stream, columns).to_pylist()


def _table(stream: Any, columns: Columns) -> pa.Table:
    file = pq.ParquetFile(stream, page_checksum_verification=True)
    return file.read(columns=_chosen(file.schema_arrow, columns) if callable(columns) else columns)


def _chosen(schema: pa.Schema, wanted: Callable[[str], bool]) -> list[str]:
    """The columns that are wanted, and of the others the fields of structs that are, as `image.path`."""
    fields = [
        f"{field.name}.{child.name}"
        for field in schema
        if pa.types.is_struct(field.type)
        for child in field.type.fields
    ]
    return list(filter(wanted, [*schema.names, *fields]))
