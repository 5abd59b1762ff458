"""Commit the one outcome of each row, however often a worker dies: `commit_block` writes it, `read_record` reads it.

The order of trust is data first, then the commit. A worker writes the files of a block's assets under keys that
hold their digest, then creates one record `commits/<hash of the ids>.parquet` that must not exist yet: the loser of
a race keeps the winner's. The driver, the only writer of tables (see `Lease`), moves the rows of records into
immutable parts `assets/part-*.parquet` and `dead_letters/part-*.parquet`, and only then deletes the records (see
`Ledger`). A row whose id has an outcome already, in a part or in an earlier record, is void: blocks are retried in
other sizes, and whichever record the driver reads first counts.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from factory.ledger.damage import read_parquet
from factory.ledger.keys import digest, key_of
from factory.storage.interface import ReadableStore, Store

COMMITS = "commits"
"""The folder of records that are in no part yet."""
RECORD = re.compile(r"/[0-9a-f]{32}\.parquet$")
"""How the key of a record ends."""


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
    return store.create(f"{COMMITS}/{name}.parquet", parquet_bytes(pa.Table.from_pylist(list(rows), schema=schema)))


def read_record(store: ReadableStore, name: str) -> pa.Table:
    """The rows of a commit record; raises KeyError when it has been published meanwhile, DamagedFile as it says."""
    return read_parquet(store, name)


def is_dead(table: pa.Table) -> bool:
    """Whether a table holds dead letters: these have a column `error_stage`."""
    return "error_stage" in table.schema.names


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as the bytes of a Parquet file, its pages with checksums."""
    stream = io.BytesIO()
    pq.write_table(table, stream, compression="zstd", write_page_checksum=True)
    return stream.getvalue()
