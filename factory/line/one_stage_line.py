"""Run work through one stage, each row to a committed result or a dead letter: `SingleStage`.

`render`, `curate`, `encode`, `export`, `evaluate` and `ablate` are such lines; what each makes of a row stands in its
own `SingleStage`.
"""

from __future__ import annotations

import socket
from typing import Any, ClassVar

import pyarrow as pa

from factory.ledger.commit_protocol import commit
from factory.ledger.schemas import OUTCOME, chosen
from factory.line.placement import Pool
from factory.line.settings import LineConfig, Runner
from factory.line.stage import Row, Stage
from factory.storage.store import StorageConfig, open_store


def line_config(pool: Pool, address: str, runner: Runner = "ray") -> LineConfig:
    """How such a line runs: one block a batch, and every row is tried however many fail."""
    return LineConfig(runner=runner, address=address, rows_per_block=pool.rows, max_failed_share=1.0)


class SingleStage(Stage):
    """The stage of such a line. Subclasses set `name` and `dead_letters`, and make a row's result in `make`.

    Rows are tried one by one, each with its own time limit; one that kills its process takes no neighbour along.

    Args:
        config: the line's settings.
        out: the folder of the results, local or s3://. run_id: which run this is. storage: how it is reached.
    """

    together = 1
    dead_letters: ClassVar[pa.Schema]
    schema: pa.Schema
    """Of the results; set in `load` where it depends on settings."""

    def __init__(
        self, config: Any, out: str, run_id: str, threads: int = 1, board: Any = None,
        storage: StorageConfig | None = None,
    ) -> None:  # fmt: skip
        self.storage = storage or StorageConfig()
        self.store, self.run_id = open_store(out, self.storage), run_id
        super().__init__(config, threads, board, self.storage)

    def make(self, row: Row) -> Row:
        """The columns of a row's result; raises ValueError for a row that cannot be used."""
        raise NotImplementedError

    def process(self, rows: list[Row]) -> None:
        """Make and commit each row's result."""
        for row in rows:
            row.update(self.make(row))

    def __call__(self, table: pa.Table) -> pa.Table:
        known = {"host": socket.gethostname(), "run_id": self.run_id, "error_stage": None}
        rows = [row | known for row in table.to_pylist()]
        for group in self.groups(rows):
            self._attempt(group)
            for row in group:
                self._commit(row)
        for row in self.given_up:
            self._commit(row)
        outcomes = [(next(iter(row.values())), "failed" if row["error_stage"] else "done") for row in rows]
        return pa.Table.from_arrays([pa.array(column) for column in zip(*outcomes)], schema=OUTCOME)

    def _commit(self, row: Row) -> None:
        schema = self.dead_letters if row["error_stage"] else self.schema
        commit(self.store, chosen(row, schema), schema)
