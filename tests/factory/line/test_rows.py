"""Rows out of a table and back: what stays is not copied, what is of another type costs its row only."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from factory.ledger.schemas import LINE, empty_row, pack, shape_of, unpack
from factory.line.rows import rows_of, with_columns
from factory.line.stage import Stage

BIG = pa.field("frames", pa.large_binary())
FRAMES = np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3)


def address(table: pa.Table, name: str) -> int:
    return table.column(name).chunk(0).buffers()[2].address


def table_of(count: int = 2) -> pa.Table:
    rows = [empty_row(prompt_id=str(k), prompt="x", frames=pack(FRAMES)) for k in range(count)]
    return pa.Table.from_pylist(rows, schema=LINE.append(BIG))


def test_large_columns_are_views_of_the_tables_bytes_and_only_the_wanted_ones() -> None:
    table = table_of()
    [first, _] = rows_of(table, ["frames", "masks"])
    assert next(iter(first)) == "prompt_id"
    assert np.frombuffer(first["frames"], np.uint8).ctypes.data == address(table, "frames")
    assert np.array_equal(unpack(first["frames"]), FRAMES)
    assert shape_of(first["frames"]) == FRAMES.shape
    assert "frames" not in rows_of(table)[0]
    assert rows_of(table, ["source_image"])[0]["source_image"] is None


class Rate(Stage):
    """Sets a number, and other frames for the second row if `other`."""

    name, writes = "rate", (BIG, pa.field("rating", pa.float64()))
    other = False

    def process(self, rows):
        for row in rows:
            row["rating"] = 0.5 if row["prompt_id"] != "2" else "much"
            if self.other and row["prompt_id"] == "1":
                row["frames"] = pack(FRAMES[::-1])


def test_stages_append_their_columns_and_leave_the_others_where_they_are() -> None:
    table = table_of()
    done = Rate(None)(table)
    assert address(done, "frames") == address(table, "frames")
    assert done["rating"].to_pylist() == [0.5, 0.5]
    assert done["seconds_rate"].null_count == 0
    assert done.schema.field("prompt_id") == table.schema.field("prompt_id")
    stage = Rate(None)
    stage.other = True
    changed = stage(done)
    assert changed.column_names == done.column_names
    assert np.array_equal(unpack(changed["frames"][1].as_py()), FRAMES[::-1])
    assert changed["frames"][0].as_py() == table["frames"][0].as_py()


def test_value_of_another_type_fails_its_row_only() -> None:
    done = Rate(None)(table_of(3)).to_pylist()
    assert [row["rating"] for row in done] == [0.5, 0.5, None]
    assert [row["error_stage"] for row in done] == [None, None, "rate"]
    assert "column rating wants double, no str" in done[2]["error_message"]


def test_columns_that_do_not_change_are_not_written() -> None:
    table = table_of(1)
    rows = rows_of(table, ["frames"])
    assert with_columns(table, rows, [dict(row) for row in rows], list(table.schema), print) is table
