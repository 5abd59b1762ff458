"""Row groups of turntable shards as work of a line: `im3d curate` and `im3d encode` go through them one by one.

    row group ── ChunkStage ──▶ its committed result, or a dead letter that says why it cannot be read

What could not be read is tried again by the next run; what has a result is not.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from factory.config import Pool
from factory.finishing import Finish, line_config
from factory.ledger import DEAD, Ledger
from factory.pipeline import Step, run_line
from factory.progress import Display
from factory.schema import CHUNK_DEAD_LETTERS, CHUNK_LINE, chosen
from factory.shards import COLUMNS, Chunk
from factory.stage import Row
from factory.store import StorageConfig, open_store
from factory.stream import Shards

if TYPE_CHECKING:
    from model.pocket.data import Turntable

NO_PICTURE = (OSError, SyntaxError, ValueError)
"""What a broken PNG raises."""
ROWS_PER_PART = 16
"""Results that are published together; each speaks of a whole row group."""


def name_of(chunk: Chunk) -> str:
    """What a row group is called in tables: its shard, its number, and its bytes, so that another one is not it."""
    return f"{chunk.key}/{chunk.group}/{chunk.size}"


@dataclass(kw_only=True, slots=True)
class ChunkWork:
    """Row groups as `work.Work`."""

    chunks: Sequence[Chunk]

    @property
    def ids(self) -> Sequence[str]:
        return [name_of(chunk) for chunk in self.chunks]

    def table(self, rows: Sequence[int], attempt: int) -> pa.Table:
        return pa.Table.from_pylist([self._row(row) | {"attempt": attempt} for row in rows], schema=CHUNK_LINE)

    def killed(self, row: int, error: Row) -> tuple[Row, pa.Schema]:
        return chosen(self._row(row) | error, CHUNK_DEAD_LETTERS), CHUNK_DEAD_LETTERS

    def _row(self, row: int) -> Row:
        chunk = self.chunks[row]
        return {"chunk_id": name_of(chunk), "key": chunk.key, "group": chunk.group, "rows": list(chunk.rows)}


class ChunkStage(Finish):
    """The stage of such a line; subclasses set `name` and `schema`, and make a row group's result in `make`.

    Args:
        config: the line's settings.
        root: the folder of the shards. out: the folder of the results.
        captions: by asset; they go before those of the shards.
        storage: how both are reached.
    """

    dead_letters = CHUNK_DEAD_LETTERS

    def __init__(
        self, config: Any, root: str, out: str, run_id: str, captions: Mapping[str, str], storage: StorageConfig,
        threads: int = 1, board: Any = None,
    ) -> None:  # fmt: skip
        self.root, self.captions, self.storage = open_store(root, storage), captions, storage
        self.problems: dict[str, str] = {}
        super().__init__(config, out, run_id, threads, board, storage)

    def turntables(self, row: Row) -> Iterator[tuple[Row, Turntable]]:
        """The small columns and the turntable of each wanted row.

        Raises:
            ValueError: when the row group cannot be read.
        """
        chunk = Chunk(key=row["key"], group=row["group"], rows=tuple(row["rows"]), size=0)
        self.problems = {}
        shards = Shards(self.root, self.problems.__setitem__, self.captions)
        first = shards.turntable(chunk, chunk.rows[0])
        if first is None:
            raise ValueError(self.problems[chunk.key])
        with self.root.open(chunk.key) as stream:
            file = pq.ParquetFile(stream)
            names = [name for name in ("turntable_id", *COLUMNS) if name in file.schema_arrow.names]
            known = file.read_row_group(chunk.group, names).to_pylist()
        for number in chunk.rows:
            turntable = shards.turntable(chunk, number)
            if turntable is not None:
                yield known[number], turntable

    def note(self, row: Row, known: Row, error: Exception) -> None:
        """Keep that a turntable of the row group cannot be read; the others can."""
        place = f"{row['key']} row group {row['group']} turntable {known.get('turntable_id', known['asset_id'])}"
        self.problems[place] = str(error).splitlines()[0][:200]


def go_through(
    chunks: Sequence[Chunk], stage: type[ChunkStage], pool: Pool, address: str, ledger: Ledger, **arguments: Any
) -> dict[str, str]:
    """Do the row groups that the ledger has no result of; returns what could not be read, and why.

    Args:
        arguments: those of the stage beside its output, its run, its threads and its board.
    """
    ledger.revive({row["chunk_id"] for row in ledger.rows(DEAD, ["chunk_id"])})
    work = ChunkWork(chunks=chunks)
    left = len(ledger.missing(work.ids))
    if left:
        print(f"{left} of {len(work.ids)} row groups to {stage.name}")
        told = arguments | {"out": ledger.store.root, "run_id": uuid.uuid4().hex[:12]}
        run_line(work, [Step(actor=stage, pool=pool, arguments=told)], line_config(pool, address), ledger, Display())
    ledger.publish()
    problems = {row["chunk_id"]: row["error_message"] for row in ledger.rows(DEAD, ["chunk_id", "error_message"])}
    for row in results(ledger, chunks, "problems"):
        problems |= dict(row["problems"])
    return problems


def results(ledger: Ledger, chunks: Sequence[Chunk], column: str) -> Iterator[Row]:
    """The ledger's results of these row groups: `chunk_id` and a column."""
    wanted = {name_of(chunk) for chunk in chunks}
    return (row for row in ledger.rows(ledger.results, ["chunk_id", column]) if row["chunk_id"] in wanted)
