"""End the line: `Commit` writes files, then the one record of each row, as an asset or as a dead letter."""

from __future__ import annotations

import json
import socket
from typing import Any

import pyarrow as pa

from factory.ledger.commit_protocol import commit_block
from factory.ledger.schemas import DEAD_LETTERS, OUTCOME, REJECTED
from factory.line.failure import Failure
from factory.line.rows import Row, rows_of
from factory.line.stage import Stage, dead_letter
from factory.stages.asset_table import MadeWith
from factory.stages.columns import (
    ELEVATION,
    FRAMES,
    GAUSSIANS,
    IMAGE,
    MEASURES,
    MESH,
    REASONS,
    SCORES,
    SOURCE_IMAGE,
    USABLE,
    VIEW_PLAN,
)
from factory.storage.interface import StorageConfig


class Commit(Stage):
    """The end of the line: files, then the one record of the rows at hand, as assets or as dead letters.

    Args:
        out: the output folder, local or s3://.
        run_id: which run this is.
        made_with: what the assets of the run have in common.
    """

    name, sections, grows = "commit", ("orbit", "files", "cost", "quality"), True
    reads = (IMAGE, GAUSSIANS, ELEVATION)
    uses = (SOURCE_IMAGE, FRAMES, VIEW_PLAN, MESH, SCORES, USABLE, REASONS, MEASURES)

    def __init__(
        self, config: Any, out: str, run_id: str, made_with: MadeWith | None = None, threads: int = 1,
        board: Any = None, storage: StorageConfig | None = None,
    ) -> None:  # fmt: skip
        from factory.storage.store import open_store

        self.store, self.run_id = open_store(out, storage), run_id
        self.made_with = made_with or MadeWith()
        super().__init__(config, threads, board, storage)

    @classmethod
    def columns(cls) -> tuple[pa.Field, ...]:
        """None: its rows are written when it ends."""
        return ()

    def __call__(self, table: pa.Table) -> pa.Table:
        rows = rows_of(table, [field.name for field in (*self.reads, *self.uses)])
        blocks: dict[pa.Schema, list[Row]] = {}
        self._report("end", [row for row in rows if row["error_stage"] is not None], 0.0)
        for group in self.groups([row for row in rows if row["error_stage"] is None]):
            for row in group:
                row |= {"run_id": self.run_id, "host": row["host"] or socket.gethostname()}
                self._write(row, blocks)
        dead = [row for row in rows if row["error_stage"] is not None]
        if dead:
            made_with = self.made_with.fingerprint
            blocks[DEAD_LETTERS] = [dead_letter(row | {"run_id": self.run_id}, made_with) for row in dead]
        for schema, outcomes in blocks.items():
            commit_block(self.store, outcomes, schema)
        status = [(row["prompt_id"], _status(row)) for row in rows]
        return pa.Table.from_arrays([pa.array(column) for column in zip(*status)], schema=OUTCOME)

    @classmethod
    def expected_seconds(cls, config: Any) -> float:
        return 0.2

    def write(self, row: Row) -> tuple[Row, pa.Schema]:
        """Write the files of a finished row; returns its table row and schema."""
        from factory.stages.asset_files import write_asset

        return write_asset(self.store, row, self.config, self.made_with, self.device())

    def reject(self, row: Row) -> None:
        """Keep a row's files apart, with all that is known of it, and make it a dead letter that says where and why."""
        from factory.stages.asset_files import write_asset

        asset, _ = write_asset(self.store, row, self.config, self.made_with, self.device(), "rejected")
        folder = asset["ply"]["path"].rpartition("/")[0]
        about = {name: value for name, value in asset.items() if name != "image"}
        self.store.put(f"{folder}/asset.json", json.dumps(about, indent=1).encode())
        why = "; ".join(row["quality_reasons"]) or "no single measure"
        message = (
            f"usable {row['usable']:.2f} is below quality.min {self.config.quality.min:g} ({why}); kept in {folder}"
        )
        row.update(error_stage=self.name, error_type=REJECTED, error_message=message)

    def _write(self, row: Row, blocks: dict[pa.Schema, list[Row]]) -> None:
        try:
            if row.get("usable") is not None and row["usable"] < self.config.quality.min:
                self.reject(row)
                return
            outcome, schema = self.write(row)
            blocks.setdefault(schema, []).append(outcome)
        except OSError:
            raise  # the storage, not the row: the block is tried again
        except (Exception, SystemExit) as error:
            failure = Failure.of(error)
            self.reporter.try_failed([row], failure)
            failure.mark(row, self.name)


def _status(row: Row) -> str:
    """As `OUTCOME` has it."""
    if row["error_stage"] is None:
        return "done"
    return "rejected" if row["error_type"] == REJECTED else "failed"
