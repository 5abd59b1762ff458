"""What is done, what is dead, what is left: exactly one record a prompt, however often a worker dies.

The order of trust is data first, then the commit. A worker writes an asset's files under a key that
holds their digest, then creates one record `commits/<hash of prompt_id>.parquet` that must not exist yet:
the loser of a race keeps the winner's. The driver, the only writer of tables (see `Lease`), moves
records into immutable parts `assets/part-*.parquet` and `dead_letters/part-*.parquet`, and only then deletes
them; a record of a prompt that a part already holds is void. Parts are the compact snapshot: a
resume reads one column of them and lists the few records since.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from factory.prompts import digest
from factory.schema import DEAD_LETTERS
from factory.store import Store

ASSETS, RENDERS, DEAD, COMMITS = "assets", "renders", "dead_letters", "commits"
ROWS_PER_PART = 256


def key_of(prompt_id: str) -> str:
    """The ledger's key of a prompt: safe as a file name whatever the id holds."""
    return digest(prompt_id)


def commit(store: Store, row: dict[str, Any], schema: pa.Schema) -> bool:
    """Record the one outcome of a row of work; False when another record was there first.

    Args:
        store: the output folder.
        row: a result or dead letter, with every column of the schema; its files are already durable.
        schema: its first column is the id; a column `error_stage` makes it a dead letter.
    """
    record = _parquet(pa.Table.from_pylist([row], schema=schema))
    return store.create(f"{COMMITS}/{key_of(row[schema.names[0]])}.parquet", record)


class Ledger:
    """The driver's view of an output folder.

    Args:
        store: the output folder; it keeps results of one kind.
        results: where they are published, as ASSETS.
        rows_per_part: publish when as many rows have gathered.

    Attributes:
        done: keys with a result, published or committed.
        dead: keys with a dead letter, published or committed.
    """

    def __init__(self, store: Store, results: str = ASSETS, rows_per_part: int = ROWS_PER_PART) -> None:
        self.store = store
        self.results, self.rows_per_part = results, rows_per_part
        self.done: set[str] = set()
        self.dead: set[str] = set()
        self._published: set[str] = set()
        self._pending: dict[str, pa.Table] = {}
        self._parts = {results: 0, DEAD: 0}
        for folder, keys in ((results, self.done), (DEAD, self.dead)):
            for name in self._part_names(folder):
                keys.update(map(key_of, self._ids(name)))
                self._parts[folder] = max(self._parts[folder], int(name.rsplit("-", 1)[1].split(".")[0]) + 1)
        self._published = self.done | self.dead
        self.refresh()

    def __contains__(self, work_id: str) -> bool:
        key = key_of(work_id)
        return key in self.done or key in self.dead

    def is_dead(self, work_id: str) -> bool:
        """Whether the row ended as a dead letter."""
        return key_of(work_id) in self.dead

    def refresh(self) -> None:
        """Read the commit records written since the last look; publish when a part's worth has gathered."""
        for name in self.store.keys(f"{COMMITS}/"):
            key = name.rsplit("/", 1)[1].removesuffix(".parquet")
            if key in self._published:
                self.store.delete(name)
            elif key not in self._pending:
                table = pq.read_table(io.BytesIO(self.store.get(name)))
                self._pending[key] = table
                (self.dead if _is_dead(table) else self.done).add(key)
        if len(self._pending) >= self.rows_per_part:
            self.publish()

    def bury(self, rows: Iterable[dict[str, Any]], schema: pa.Schema = DEAD_LETTERS) -> None:
        """Commit dead letters from the driver: rows that never entered the line or killed their workers."""
        for row in rows:
            commit(self.store, row, schema)
        self.refresh()

    def publish(self) -> None:
        """Move every commit record into parts, then delete the records."""
        for folder, dead in ((self.results, False), (DEAD, True)):
            tables = [table for table in self._pending.values() if _is_dead(table) == dead]
            if tables:
                merged = pa.concat_tables(tables, promote_options="default")
                merged = merged.replace_schema_metadata(tables[-1].schema.metadata)
                self.store.put(f"{folder}/part-{self._parts[folder]:06d}.parquet", _parquet(merged))
                self._parts[folder] += 1
        self._published.update(self._pending)
        for key in self._pending:
            self.store.delete(f"{COMMITS}/{key}.parquet")
        self._pending = {}

    def revive(self, work_ids: set[str]) -> int:
        """Forget these dead letters, so that their rows run again; returns how many there were.

        A crash half-way leaves a row neither done nor dead: the next run takes it up.
        """
        self.publish()
        count = 0
        for name in list(self._part_names(DEAD)):
            table = pq.read_table(io.BytesIO(self.store.get(name)))
            kept = table.filter(pa.array([value not in work_ids for value in table.column(0).to_pylist()]))
            count += table.num_rows - kept.num_rows
            if kept.num_rows == 0:
                self.store.delete(name)
            elif kept.num_rows < table.num_rows:
                self.store.put(name, _parquet(kept))
        keys = {key_of(value) for value in work_ids} & self.dead
        self.dead -= keys
        self._published -= keys
        return count

    def rows(self, folder: str, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
        """Every published row of the results or of DEAD, in order of publication; a column may be `image.path`."""
        for name in self._part_names(folder):
            yield from pq.ParquetFile(io.BytesIO(self.store.get(name))).read(columns=columns).to_pylist()

    def _part_names(self, folder: str) -> Iterator[str]:
        return (name for name in self.store.keys(f"{folder}/") if name.endswith(".parquet"))

    def _ids(self, name: str) -> list[str]:
        with self.store.open(name) as stream:
            file = pq.ParquetFile(stream)
            return file.read(columns=[file.schema_arrow.names[0]]).column(0).to_pylist()


def _is_dead(table: pa.Table) -> bool:
    return "error_stage" in table.schema.names


def _parquet(table: pa.Table) -> bytes:
    stream = io.BytesIO()
    pq.write_table(table, stream, compression="zstd")
    return stream.getvalue()


def file_entry(path: str, data: bytes) -> dict[str, Any]:
    """How a table refers to a file: path relative to the output folder, SHA-256, bytes."""
    return {"path": path, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
