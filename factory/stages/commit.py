"""The end of the line: files, then the one record of each row, as an asset or as a dead letter."""

from __future__ import annotations

import socket
from typing import Any

import pyarrow as pa

from factory.config.settings import FactoryConfig, fingerprint
from factory.ledger.ledger import commit_block
from factory.ledger.schemas import DEAD_LETTERS, OUTCOME
from factory.line.failure import Failure
from factory.line.stage import Row, Stage, dead_letter


class Commit(Stage):
    """The end of the line: files, then the one record of the rows at hand, as assets or as dead letters.

    Args:
        out: the output folder, local or s3://.
        run_id: which run this is.
    """

    name = "commit"

    def __init__(self, config: FactoryConfig, out: str, run_id: str, threads: int = 1, board: Any = None) -> None:
        from factory.storage.store import open_store

        self.store, self.run_id = open_store(out, config.storage), run_id
        super().__init__(config, threads, board)

    def __call__(self, table: pa.Table) -> pa.Table:
        rows = table.to_pylist()
        blocks: dict[pa.Schema, list[Row]] = {}
        self._tell("end", [row for row in rows if row["error_stage"] is not None], 0.0)
        for group in self.groups([row for row in rows if row["error_stage"] is None]):
            for row in group:
                row |= {"run_id": self.run_id, "host": row["host"] or socket.gethostname()}
                self._write(row, blocks)
        dead = [row for row in rows if row["error_stage"] is not None]
        if dead:
            made_with = fingerprint(self.config)
            blocks[DEAD_LETTERS] = [dead_letter(row | {"run_id": self.run_id}, made_with) for row in dead]
        for schema, outcomes in blocks.items():
            commit_block(self.store, outcomes, schema)
        status = [(row["prompt_id"], "done" if row["error_stage"] is None else "failed") for row in rows]
        return pa.Table.from_arrays([pa.array(column) for column in zip(*status)], schema=OUTCOME)

    def write(self, row: Row) -> tuple[Row, pa.Schema]:
        """Write the files of a finished row; returns its table row and schema."""
        from factory.stages.asset_files import write_asset

        return write_asset(self.store, row, self.config)

    def _write(self, row: Row, blocks: dict[pa.Schema, list[Row]]) -> None:
        try:
            outcome, schema = self.write(row)
            blocks.setdefault(schema, []).append(outcome)
        except OSError:
            raise  # the storage, not the row: the block is tried again
        except Exception as error:
            failure = Failure.of(error)
            self.reporter.try_failed([row], failure)
            failure.mark(row, self.name)
