"""Keep the tables of an output folder: `Ledger` moves committed outcomes into parts and knows what is done or dead.

A resume reads the parts' snapshots (see `Snapshots`), the id column of the few parts since, and the commit records.
How an outcome is committed exactly once is `commit_protocol`.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Iterable
from typing import Any

import pyarrow as pa

from factory.ledger.commit_protocol import commit_block, is_dead, parquet_bytes
from factory.ledger.damage import DAMAGED, DamagedFile, read_parquet
from factory.ledger.keys import packed
from factory.ledger.lease import Lease, LeaseLost
from factory.ledger.reader import ASSETS, DEAD, RENDERS, SCORES, LedgerReader
from factory.ledger.schemas import DEAD_LETTERS
from factory.ledger.snapshots import Snapshots, part_names
from factory.storage.interface import Store

__all__ = ["ASSETS", "DEAD", "RENDERS", "SCORES", "Ledger", "file_entry"]
ROWS_PER_PART = 256
log = logging.getLogger("factory")


class Ledger(LedgerReader):
    """The driver's view of an output folder that it writes into.

    Args:
        store: the output folder; it keeps results of one kind.
        results: where they are published, as ASSETS.
        rows_per_part: publish when as many rows have gathered.
        lease: what allows this process to publish; without it the caller sees to that.
    """

    store: Store

    def __init__(
        self, store: Store, results: str = ASSETS, rows_per_part: int = ROWS_PER_PART, lease: Lease | None = None
    ) -> None:
        self.rows_per_part, self.lease = rows_per_part, lease
        super().__init__(store, results)

    def refresh(self) -> None:
        """Read the commit records written since the last look; publish when a part's worth has gathered."""
        self._gather()
        if sum(map(len, self._pending.values())) >= self.rows_per_part:
            self.publish()

    def add_dead_letters(self, rows: Iterable[dict[str, Any]], schema: pa.Schema = DEAD_LETTERS) -> None:
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
            tables = [table for table in self._pending.values() if len(table) and is_dead(table) == dead]
            if tables:
                merged = pa.concat_tables(tables, promote_options="default")
                self._add_part(folder, merged.replace_schema_metadata(tables[-1].schema.metadata))
                self._snapshots[folder].save(keys)
        for name in self._pending:
            self.store.delete(name)
        self._pending = {}

    def requeue(self, work_ids: Collection[str] | None = None) -> int:
        """Forget these dead letters, or all, so that their rows run again; returns how many there were.

        A crash half-way leaves a row neither done nor dead: the next run takes it up.
        """
        self.publish()
        count = self._forget(DEAD, work_ids)
        self.dead, self._parts[DEAD] = self._snapshots[DEAD].load()
        return count

    def forget(self, work_ids: Collection[str]) -> int:
        """Forget these results, so that their rows are made again; returns how many there were. Their files stay."""
        self.publish()
        count = self._forget(self.results, work_ids)
        self.done, self._parts[self.results] = self._snapshots[self.results].load()
        return count

    def _forget(self, folder: str, work_ids: Collection[str] | None) -> int:
        """Take rows, or all, out of the parts of a folder."""
        names = list(part_names(self.store, folder))
        if not names or (work_ids is not None and not work_ids):
            return 0
        count = 0
        self._snapshots[folder].forget()
        for name in names:
            try:
                table = read_parquet(self.store, name)
            except DamagedFile as error:
                self._damaged(error)
                continue
            wanted = [work_ids is not None and value not in work_ids for value in table.column(0).to_pylist()]
            kept = table.filter(pa.array(wanted, pa.bool_()))
            count += table.num_rows - kept.num_rows
            if kept.num_rows == 0:
                self.store.delete(name)
            elif kept.num_rows < table.num_rows:
                self.store.put(name, parquet_bytes(kept))
        return count

    def _damaged(self, error: DamagedFile) -> None:
        """Move a part or record aside, so that its rows run again and their records can be written."""
        self.store.put(f"{DAMAGED}/{error.name}", self.store.get(error.name))
        self.store.delete(error.name)
        log.warning("%s/%s; moved to %s/, its rows run again", self.store.root, error, DAMAGED)

    def _open_snapshots(self) -> Any:
        return {folder: Snapshots(self.store, folder, self._damaged) for folder in (self.results, DEAD)}

    def _gather(self) -> None:
        self._take(self._new_records())

    def _add_part(self, folder: str, table: pa.Table) -> None:
        name = f"{folder}/part-{self._parts[folder]:06d}.parquet"
        if not self.store.create(name, parquet_bytes(table)):
            raise LeaseLost(f"{self.store.root}/{name} was written by another run; this one publishes nothing more")
        self._parts[folder] += 1
        self._snapshots[folder].add(name, packed(table.column(0).to_pylist()))


def file_entry(path: str, data: bytes) -> dict[str, Any]:
    """How a table refers to a file: path relative to the output folder, SHA-256, bytes."""
    return {"path": path, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
