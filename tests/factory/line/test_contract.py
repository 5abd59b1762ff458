"""A stage that does not do what it declares is named, with the column and the way out."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from factory.ledger.schemas import LINE, empty_row
from factory.line.settings import Pool
from factory.line.stage import Row, Stage

GREY, TINT = pa.field("grey", pa.large_binary()), pa.field("tint", pa.float64())


class Tint(Stage):
    """Does what a test asks for."""

    name, reads, uses, writes = "tint", (GREY,), (pa.field("frames", pa.large_binary()),), (TINT,)
    pool = Pool(batch=2)

    def process(self, rows: list[Row]) -> None:
        for row in rows:
            self.config(row)


def outcome(act: Any, **columns: Any) -> Row:
    """What the line has of a row after the stage."""
    table = pa.Table.from_pylist([empty_row(prompt_id="p", prompt="a cup", seed=1) | {"grey": b"1"}], schema=LINE)
    table = table.append_column(GREY, pa.array([b"1"], GREY.type))
    for name, value in columns.items():
        table = table.append_column(name, pa.array([value]))
    return Tint(act)(table).to_pylist()[0]


def set_tint(row: Row) -> None:
    row["tint"] = 0.5


UNDECLARED = "which it does not declare; add its field to the stage's"


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda row: row.update(tint=0.5, shade=1.0), f"stage tint sets column 'shade', {UNDECLARED} writes"),
        (lambda row: row.update(tint=0.5, prompt="a pot"), f"stage tint sets column 'prompt', {UNDECLARED} writes"),
        (lambda row: None, "stage tint declares column 'tint' and leaves it unset; set it for every row, to None"),
        (lambda row: row["shade"], f"stage tint reads column 'shade', {UNDECLARED} reads, or to its uses"),
        (lambda row: row["mask"], f"stage tint reads column 'mask', {UNDECLARED} reads, or to its uses"),
        (lambda row: row.get("mask"), f"stage tint reads column 'mask', {UNDECLARED} reads, or to its uses"),
        (lambda row: row["frames"], "stage tint reads column 'frames', which nothing has set yet"),
        (lambda row: row["tint"], "stage tint reads column 'tint', which nothing has set yet"),
    ],
    ids=[
        "sets",
        "changes",
        "unset",
        "reads",
        "reads another's",
        "gets",
        "uses what is not there",
        "reads before it sets",
    ],
)
def test_a_breach_is_a_dead_letter_that_says_how_to_mend_it(act: Any, message: str) -> None:
    row = outcome(act, mask=3.0)
    assert (row["error_stage"], row["error_type"]) == ("tint", "ContractError")
    assert row["error_message"].startswith(message)
    assert (row["tint"], row["mask"]) == (None, 3.0)


@pytest.mark.parametrize(
    "act",
    [
        set_tint,
        lambda row: row.update(tint=None),
        lambda row: row.update(tint=float(bytes(row["grey"])), error_stage="tint", error_type="dropped"),
        lambda row: row.update(tint=row.get("frames"), host=row["prompt"] + str(row["seed"])),
    ],
)
def test_what_is_declared_passes(act: Any) -> None:
    assert outcome(act)["error_type"] in (None, "dropped")
    assert outcome(act)["error_message"] is None


def test_a_dropped_row_need_not_be_whole() -> None:
    assert outcome(lambda row: Tint.drop(Tint(set_tint), row, "too grey"))["error_message"] == "too grey"
