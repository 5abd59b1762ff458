"""What is done, what is dead, what is left: exactly one outcome a prompt, however often a worker dies.

The order of trust is data first, then the commit. A worker writes the files of a block's assets under keys that
hold their digest, then creates one record `commits/<hash of the ids>.parquet` that must not exist yet: the loser of
a race keeps the winner's. The driver, the only writer of tables (see `Lease`), moves the rows of records into
immutable parts `assets/part-*.parquet` and `dead_letters/part-*.parquet`, and only then deletes the records. A row
whose id has an outcome already, in a part or in an earlier record, is void: blocks are retried in other sizes, and
whichever record the driver reads first counts. A resume reads the parts' snapshots (see `Snapshots`), the id column
of the few parts since, and the records.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from factory.ledger.keys import Keys, digest, key_of, packed
from factory.ledger.lease import Lease, LeaseLost
from factory.ledger.schemas import DEAD_LETTERS
from factory.ledger.snapshots import Snapshots, part_names, read_each
from factory.storage.store import Store

ASSETS, RENDERS, SCORES, DEAD, COMMITS = "assets", "renders", "scores", "dead_letters", "commits"
ROWS_PER_PART = 256


def commit(store: Store, row: dict[str, Any], schema: pa.Schema) -> bool:
    """Record the one outcome of a row of work; False when another record was there first.

    Args:
        store: the output folder.
        row: a result or dead letter, with every column of the schema; its files are already durable.
        schema: its first column is the id; a column `error_stage` makes it a dead letter.
    """
    return commit_block(store, [row], schema)


def commit_block(store: Store, rows: Sequence[dict[str, Any]], schema: pa.Schema) -> bool:
    """Record the outcomes of rows that were made together, in one object; as `commit` for one of them."""
    keys = [key_of(row[schema.names[0]]) for row in rows]
    name = keys[0] if len(keys) == 1 else digest(*sorted(keys))
    return store.create(f"{COMMITS}/{name}.parquet", _parquet(pa.Table.from_pylist(list(rows), schema=schema)))


class Ledger:
    """The driver's view of an output folder.

    Args:
        store: the output folder; it keeps results of one kind.
        results: where they are published, as ASSETS.
        rows_per_part: publish when as many rows have gathered.
        lease: what allows this process to publish; without it the caller sees to that.

    Attributes:
        done: keys with a result, published or committed.
        dead: keys with a dead letter, published or committed.
    """

    def __init__(
        self, store: Store, results: str = ASSETS, rows_per_part: int = ROWS_PER_PART, lease: Lease | None = None
    ) -> None:
        self.store, self.results, self.rows_per_part, self.lease = store, results, rows_per_part, lease
        self._pending: dict[str, pa.Table] = {}
        self._snapshots = {folder: Snapshots(store, folder) for folder in (results, DEAD)}
        self._parts: dict[str, int] = {}
        # Before the parts: a writer that is just losing the folder may still move some.
        records = list(self._new_records())
        self.done, self._parts[results] = self._snapshots[results].load()
        self.dead, self._parts[DEAD] = self._snapshots[DEAD].load()
        self._take(records)

    def __contains__(self, work_id: str) -> bool:
        return not self.missing([work_id])

    def missing(self, work_ids: Sequence[str]) -> list[int]:
        """The places in `work_ids` of those that have no outcome."""
        return np.flatnonzero(~self._settled(packed(work_ids))).tolist()

    def is_dead(self, work_id: str) -> bool:
        """Whether the row ended as a dead letter."""
        return work_id in self.dead

    def refresh(self) -> None:
        """Read the commit records written since the last look; publish when a part's worth has gathered."""
        self._gather()
        if sum(map(len, self._pending.values())) >= self.rows_per_part:
            self.publish()

    def bury(self, rows: Iterable[dict[str, Any]], schema: pa.Schema = DEAD_LETTERS) -> None:
        """Commit dead letters from the driver: rows that never entered the line or killed their workers."""
        rows = list(rows)
        for start in range(0, len(rows), self.rows_per_part):
            commit_block(self.store, rows[start : start + self.rows_per_part], schema)
            self.refresh()

    def publish(self) -> None:
        """Move every commit record into parts, then delete the records.

        Raises:
            LeaseLost: when another writer has taken over the folder.
        """
        if self.lease:
            self.lease.check()
        self._gather()
        for folder, keys, dead in ((self.results, self.done, False), (DEAD, self.dead, True)):
            tables = [table for table in self._pending.values() if len(table) and _is_dead(table) == dead]
            if tables:
                merged = pa.concat_tables(tables, promote_options="default")
                self._add_part(folder, merged.replace_schema_metadata(tables[-1].schema.metadata))
                self._snapshots[folder].save(keys)
        for name in self._pending:
            self.store.delete(name)
        self._pending = {}

    def revive(self, work_ids: set[str]) -> int:
        """Forget these dead letters, so that their rows run again; returns how many there were.

        A crash half-way leaves a row neither done nor dead: the next run takes it up.
        """
        self.publish()
        if not work_ids:
            return 0
        count = 0
        self._snapshots[DEAD].forget()
        for name in list(part_names(self.store, DEAD)):
            table = pq.read_table(io.BytesIO(self.store.get(name)))
            kept = table.filter(pa.array([value not in work_ids for value in table.column(0).to_pylist()]))
            count += table.num_rows - kept.num_rows
            if kept.num_rows == 0:
                self.store.delete(name)
            elif kept.num_rows < table.num_rows:
                self.store.put(name, _parquet(kept))
        self.dead, self._parts[DEAD] = self._snapshots[DEAD].load()
        return count

    def rows(
        self, folder: str, columns: Sequence[str] | Callable[[str], bool] | None = None, newest: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """Published rows of the results or of DEAD, in order of publication.

        Args:
            columns: by name, as `seed` or `image.path`, or those whose name is wanted; None: all. Rows lack what their
                part of the table does not have.
            newest: only so many, the last ones.
        """
        names, skip = list(part_names(self.store, folder)), 0
        if newest is not None:
            names, skip = self._last_parts(names, newest)
        for name in names:
            with self.store.open(name) as stream:
                file = pq.ParquetFile(stream)
                wanted = list(filter(columns, file.schema_arrow.names)) if callable(columns) else columns
                table = file.read(columns=wanted)
            yield from table.slice(skip).to_pylist()
            skip = max(0, skip - len(table))

    def _last_parts(self, names: list[str], rows: int) -> tuple[list[str], int]:
        """The last parts that hold so many rows together, and how many of their first rows are too many."""
        count, first = 0, len(names)
        while first and count < rows:
            first -= 1
            with self.store.open(names[first]) as stream:
                count += pq.ParquetFile(stream).metadata.num_rows
        return names[first:], max(0, count - rows)

    def _settled(self, keys: Keys) -> Any:
        return self.done.find(keys) | self.dead.find(keys)

    def _gather(self) -> None:
        self._take(self._new_records())

    def _new_records(self) -> Iterator[tuple[str, pa.Table]]:
        """Commit records that are not pending yet, by name."""
        names = [name for name in self.store.keys(f"{COMMITS}/") if name not in self._pending]
        return read_each(self.store, names, _record)

    def _take(self, records: Iterable[tuple[str, pa.Table]]) -> None:
        """Keep what records settle that is not settled yet, until it is published."""
        for name, table in records:
            keys = packed(table.column(0).to_pylist())
            fresh = ~self._settled(keys)
            self._pending[name] = table.filter(pa.array(fresh))
            (self.dead if _is_dead(table) else self.done).add(keys[fresh])

    def _add_part(self, folder: str, table: pa.Table) -> None:
        name = f"{folder}/part-{self._parts[folder]:06d}.parquet"
        if not self.store.create(name, _parquet(table)):
            raise LeaseLost(f"{self.store.root}/{name} was written by another run; this one publishes nothing more")
        self._parts[folder] += 1
        self._snapshots[folder].add(name, packed(table.column(0).to_pylist()))


def _is_dead(table: pa.Table) -> bool:
    return "error_stage" in table.schema.names


def _record(store: Store, name: str) -> pa.Table:
    return pq.read_table(io.BytesIO(store.get(name)))


def _parquet(table: pa.Table) -> bytes:
    stream = io.BytesIO()
    pq.write_table(table, stream, compression="zstd")
    return stream.getvalue()


def file_entry(path: str, data: bytes) -> dict[str, Any]:
    """How a table refers to a file: path relative to the output folder, SHA-256, bytes."""
    return {"path": path, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
