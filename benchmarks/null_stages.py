"""Return data of the right shapes without models, to see what the line itself costs: `NullImage`, `NullVideo`, …"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pyarrow as pa

from factory.ledger.ledger import file_entry
from factory.ledger.schemas import pack
from factory.line.stage import Row, Stage
from factory.stages.asset_table import assets_schema
from factory.stages.chain import written_columns
from factory.stages.columns import ELEVATION, FRAMES, GAUSSIANS, IMAGE, MASKS
from factory.stages.commit import Commit

VIEWS, SIZE = 16, 512
WORK_SECONDS = 0.05
PLY_BYTES = 2 << 20
CALLED = "called"
"""Event: one call of a stage: seconds in `process`, seconds outside it, and CPU seconds of its thread."""


class _Null(Stage):
    """Waits as long as a model would, then hands out the arrays it made when it was loaded."""

    made: dict[str, Any]

    def __call__(self, table: pa.Table) -> pa.Table:
        started, cpu, self.worked = time.perf_counter(), time.thread_time(), 0.0
        done = super().__call__(table)
        spent = {"seconds": time.perf_counter() - started - self.worked, "cpu": time.thread_time() - cpu}
        self.reporter.note(CALLED, worked=self.worked, **spent)
        return done

    def process(self, rows: list[Row]) -> None:
        started = time.perf_counter()
        for row in rows:
            time.sleep(WORK_SECONDS)
            row.update(self.made)
        self.worked += time.perf_counter() - started


class NullImage(_Null):
    """A picture [512,512,3]."""

    name, writes = "image", (IMAGE,)

    def load(self) -> None:
        """Makes the one output that every row gets."""
        self.made = {"image": pack(np.zeros((SIZE, SIZE, 3), np.uint8))}


class NullVideo(_Null):
    """A turntable [16,512,512,3]."""

    name, writes = "video", (FRAMES,)

    def load(self) -> None:
        """Makes the one output that every row gets."""
        self.made = {"frames": pack(np.zeros((VIEWS, SIZE, SIZE, 3), np.uint8))}


class NullViews(_Null):
    """Masks [16,512,512] and an elevation."""

    name, writes = "views", (MASKS, ELEVATION)

    def load(self) -> None:
        """Makes the one output that every row gets."""
        self.made = {"masks": pack(np.zeros((VIEWS, SIZE, SIZE), np.uint8)), "elevation": 0.3}


class NullReconstruct(_Null):
    """Two MiB of Gaussians."""

    name, writes = "reconstruct", (GAUSSIANS,)

    def load(self) -> None:
        """Makes the one output that every row gets."""
        self.made = {"gaussians": bytes(PLY_BYTES)}


class NullScore(_Null):
    """Pictures [16,512,512,4], so that a row of all has 36 MB."""

    name, writes = "score", (pa.field("renders", pa.large_binary()),)

    def load(self) -> None:
        """Makes the one output that every row gets."""
        self.made = {"renders": pack(np.zeros((VIEWS, SIZE, SIZE, 4), np.uint8))}


class NullCommit(Commit):
    """Writes the Gaussians and a row."""

    def write(self, row: Row) -> tuple[Row, pa.Schema]:
        """Stores the Gaussians; the finished row and its schema."""
        key = f"files/{row['prompt_id']}/asset.ply"
        self.store.put(key, row["gaussians"])
        schema = assets_schema(written_columns())
        return {name: row.get(name) for name in schema.names} | {
            "image": None,
            "ply": file_entry(key, row["gaussians"]),
        }, schema


class SmallImage(Stage):
    """A few bytes a row, at no cost."""

    name, writes = "image", (IMAGE,)

    def process(self, rows: list[Row]) -> None:
        """Gives every row its few bytes."""
        for row in rows:
            row["image"] = small(row["prompt"])


class SmallCommit(Commit):
    """A row without files."""

    SCHEMA = pa.schema([pa.field("prompt_id", pa.string(), False), ("prompt", pa.string()), ("size", pa.int32())])

    def write(self, row: Row) -> tuple[Row, pa.Schema]:
        """The finished row and its schema; no file."""
        return {"prompt_id": row["prompt_id"], "prompt": row["prompt"], "size": len(row["image"])}, self.SCHEMA


def small(prompt: str) -> bytes:
    """What the stage of small rows makes of a prompt."""
    return prompt.encode() * 2
