"""Row groups of turntable shards as work of a line: `im3d curate` and `im3d encode` go through them one by one.

    row group ── GroupStage ──▶ its committed result, or a dead letter that says why it cannot be read

A result is that of a file as it was: shards that are written anew are gone through anew, and dead letters every time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from factory.ledger.keys import digest
from factory.ledger.reader import DEAD, LedgerReader
from factory.ledger.schemas import ERROR, chosen
from factory.line.cost import CostConfig
from factory.line.one_stage_line import SingleStage
from factory.line.output_folder import OutputFolder
from factory.line.placement import Pool
from factory.line.settings import LineConfig
from factory.line.stage import Row
from factory.line.step import Step
from factory.storage.store import StorageConfig, open_store
from factory.training.shards.draw_order import Shards, recording_problems
from factory.training.shards.index import COLUMNS, Chunk, Index, storage_errors_first

if TYPE_CHECKING:
    from model.pocket.data import Turntable

ROWS_PER_PART = 16
"""Results that are published together; each speaks of a whole row group."""

GROUP_LINE = pa.schema(
    [
        pa.field("group_id", pa.string(), False),  # shard, row group, which writing of the file
        *[("key", pa.string()), ("group", pa.int32()), ("rows", pa.list_(pa.int32()))],
        ("attempt", pa.int32()),
    ]
)
GROUP_DEAD_LETTERS = pa.schema([*GROUP_LINE, *ERROR, ("host", pa.string()), ("run_id", pa.string())])
GROUP_RESULT = [
    pa.field("group_id", pa.string(), False),
    ("problems", pa.map_(pa.string(), pa.string())),  # turntables that cannot be read, and why
    *[("host", pa.string()), ("run_id", pa.string())],
]
"""What every result says of its row group."""


def named_groups(index: Index) -> dict[str, Chunk]:
    """The row groups of an index by name: shard, number, and which writing of the file it is."""
    written = {
        item.key: digest(str(item.size), str(item.modified))[:8]
        for item in open_store(index.url, index.storage).objects("renders/")
    }
    return {f"{chunk.key}/{chunk.group}/{written.get(chunk.key, '')}": chunk for chunk in index.chunks}


@dataclass(kw_only=True, slots=True)
class GroupWork:
    """Row groups as `work.Work`."""

    groups: Mapping[str, Chunk]

    @property
    def ids(self) -> Sequence[str]:
        return list(self.groups)

    def table(self, rows: Sequence[int], attempt: int) -> pa.Table:
        ids = self.ids
        return pa.Table.from_pylist([self._row(ids[row]) | {"attempt": attempt} for row in rows], schema=GROUP_LINE)

    def killed(self, row: int, error: Row) -> tuple[Row, pa.Schema]:
        return chosen(self._row(self.ids[row]) | error, GROUP_DEAD_LETTERS), GROUP_DEAD_LETTERS

    def _row(self, name: str) -> Row:
        chunk = self.groups[name]
        return {"group_id": name, "key": chunk.key, "group": chunk.group, "rows": list(chunk.rows)}


class GroupStage(SingleStage):
    """The stage of such a line; subclasses set `name` and `schema`, and make a row group's result in `make`.

    Args:
        config: the line's settings.
        root: the folder of the shards. out: the folder of the results.
        captions: by asset; they go before those of the shards.
        storage: how both are reached.

    Attributes:
        problems: turntables of the row group at hand that cannot be read, and why.
    """

    dead_letters = GROUP_DEAD_LETTERS

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
        chunk, self.problems = Chunk(key=row["key"], group=row["group"], rows=tuple(row["rows"]), size=0), {}
        known = self._columns(chunk)
        shards = Shards(self.root, self.problems.__setitem__, self.captions)
        for number in chunk.rows:
            found = None
            with self.recording_problems(row, number):
                found = shards.turntable(chunk, number)
            if chunk.key in self.problems:
                raise ValueError(self.problems[chunk.key])
            if found is not None:
                yield known[number] | {"number": number}, found

    def _columns(self, chunk: Chunk) -> list[Row]:
        with storage_errors_first(self.root, chunk.key), self.root.open(chunk.key) as stream:
            file = pq.ParquetFile(stream)
            names = [name for name in ("turntable_id", *COLUMNS) if name in file.schema_arrow.names]
            return file.read_row_group(chunk.group, names).to_pylist()

    def recording_problems(self, row: Row, number: int) -> Any:
        """Keeps that a turntable of the row group cannot be read; the others can."""
        return recording_problems(self.problems.__setitem__, f"{row['key']} row group {row['group']} row {number}")


def run_groups(
    groups: Mapping[str, Chunk], stage: type[GroupStage], line: LineConfig, pool: Pool, folder: OutputFolder,
    prices: CostConfig, **arguments: Any,
) -> dict[str, str]:  # fmt: skip
    """Do the row groups that the folder has no result of; returns what could not be read, and why.

    Args:
        prices: for the cost so far.
        arguments: those of the stage beside its output, its run, its threads and its board.
    """
    folder.ledger.requeue()
    work = GroupWork(groups=groups)
    arguments |= {"out": folder.store.root, "run_id": folder.run_id}
    chain = [Step(actor=stage, pool=pool, arguments=arguments)]
    folder.run(work, chain, line, prices, "row groups", stage.name)
    letters = folder.ledger.rows(DEAD, ["group_id", "error_message"])
    problems = {row["group_id"]: row["error_message"] for row in letters if row["group_id"] in groups}
    for row in results(folder.ledger, groups, "problems"):
        problems |= dict(row["problems"])
    return problems


def results(ledger: LedgerReader, groups: Mapping[str, Chunk], column: str) -> Iterator[Row]:
    """The ledger's results of these row groups: `group_id` and a column."""
    return (row for row in ledger.rows(ledger.results, ["group_id", column]) if row["group_id"] in groups)
