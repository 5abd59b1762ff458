"""The paper's tables: its numbers stand where its text has them, and each form reads back."""

from __future__ import annotations

import csv
import io
import json
import re
import xml.etree.ElementTree as xml
from pathlib import Path

import pytest

from eval.paper import CAPTIONS, COLUMNS, SOURCES, TABLES
from eval.strict_json import as_json
from eval.tables import own_rows, paper_table, write

SCORES = {"clip_text_renders_b": {"mean": 20.0, "std": 1.0}, "clip_image_renders_b": {"mean": 80.0, "std": 2.0}}
COSTS = {"minutes": 1.5, "steps": 40.0, "forwards": 80.0}


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_every_form_holds_the_same_cells(number: int) -> None:
    table = paper_table(number, own_rows(number, "run_1 & co", SCORES, ["b"], COSTS))
    assert len(table.rows) == len(TABLES[number]) + 1
    assert all(len(row) == len(table.columns) for row in table.rows)
    cells = [table.columns, *table.rows]
    assert [tuple(row) for row in csv.reader(io.StringIO(write(table, "csv")))] == cells
    rows = xml.fromstring(write(table, "html")).findall("tr")
    assert [tuple(cell.text for cell in row) for row in rows] == cells
    assert write(table, "markdown").count("\n| ") == len(cells) + 1
    latex = write(table, "latex")
    assert r"run\_1 \& co" in latex
    assert latex.count(r"\\") == len(cells)


def test_rows_are_the_papers_and_ours() -> None:
    first = paper_table(1, own_rows(1, "ours", SCORES, ["b"], COSTS)).rows
    assert first[-2] == ("IM-3D (paper)", "3", "31.92 ± 1.6", "92.38 ± 5.1", "31.66 ± 1.7", "91.40 ± 5.5")
    assert first[-1] == ("ours, CLIP b", "1.5", "—", "—", "20.00 ± 1.0", "80.00 ± 2.0")
    calls = paper_table(4, own_rows(4, "ours", SCORES, ["b"], COSTS))
    assert calls.rows[-2:] == [("IM-3D (paper)", "80", "—"), ("ours", "40", "80")]
    assert paper_table(3).rows[-1] == ("4 (paper)", "30.06 ± 2.6", "86.96 ± 8.6")
    assert {len(row) for number in TABLES for row in TABLES[number] if len(row) != len(COLUMNS[number])} == set()
    with pytest.raises(ValueError, match="table 6 not found"):
        paper_table(6)


def test_one_prompt_has_no_deviation_and_json_no_nan() -> None:
    (row,) = own_rows(5, "ours", {"clip_text_renders_b": {"mean": 20.0, "std": None}}, ["b"], {})
    assert paper_table(5, [row]).rows[-1] == ("ours, CLIP b", "20.00", "—")
    text = as_json({"a": [float("nan"), 1.5, (float("inf"),)], "b": {"c": "nan"}})
    assert json.loads(text) == {"a": [None, 1.5, [None]], "b": {"c": "nan"}}


def test_numbers_are_those_of_the_papers_text() -> None:
    paper = Path(__file__).parents[3] / "shared" / "paper" / "im-3d.txt"
    if not paper.is_file():
        pytest.skip(f"no text of the paper at {paper}")
    text = paper.read_text()
    assert SOURCES.keys() == CAPTIONS.keys() == TABLES.keys()
    printed = [re.findall(r"[\d.]+", line.split("\t", 1)[1]) for line in text.splitlines() if "\t" in line]
    for number in (1, 2, 3, 5):
        for row in TABLES[number]:
            cells = [cell for cell in row[1:] if cell is not None]
            flat = [value for cell in cells for value in (cell if isinstance(cell, tuple) else (cell,))]
            assert any([float(value) for value in line] == flat for line in printed), row
    (calls,) = [line for line in printed if len(line) == 6 and float(line[0]) == TABLES[4][0][1]]
    assert [float(value) for value in calls] == [row[1] for row in TABLES[4]]
