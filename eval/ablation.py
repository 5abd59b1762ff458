"""Make the table of an ablation, paired with the full method, the paper beside: `ablation_table`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from eval.paper import TABLES, Cell
from eval.statistics import compare, summarise
from eval.tables import Table

Scores = Mapping[str, Mapping[str, float]]
"""Of one variant: by asset, by column."""


@dataclass(kw_only=True, slots=True)
class Line:
    """One row: the `variant`, how it is called, and the label of the paper's own row where it has one."""

    variant: str
    label: str
    paper: str | None = None


@dataclass(kw_only=True, slots=True)
class Column:
    """One score: its `name` in the rows, its heading, digits after the point, and what one unit is divided by."""

    name: str
    heading: str
    digits: int = 2
    unit: float = 1.0
    tested: bool = True
    """Whether the paired test is printed."""


def ablation_table(
    caption: str, full: str, lines: Sequence[Line], results: Mapping[str, Scores], columns: Sequence[Column]
) -> Table:
    """One row a line that has results; cells are mean ± standard deviation over assets and, where tested, the
    two-sided p-value of the paired t-test against the variant `full` over the assets of both.

    The paper's CLIP scores, where a line names them, stand beside in columns of their own.
    """
    paper = any(line.paper for line in lines)
    headings = ("variant", *(("paper: CLIP text", "paper: CLIP image") if paper else ()), "assets")
    rows = []
    for line in lines:
        scores = results.get(line.variant)
        if not scores:
            continue
        beside = _paper_cells(line.paper) if paper else ()
        base = results.get(full, {}) if line.variant != full else {}
        cells = [_cell(column, scores, base) for column in columns]
        rows.append((line.label, *beside, str(len(scores)), *cells))
    return Table(caption=caption, columns=(*headings, *(column.heading for column in columns)), rows=rows)


def _cell(column: Column, scores: Scores, base: Scores) -> str:
    own = {asset: row[column.name] / column.unit for asset, row in scores.items() if row.get(column.name) is not None}
    if not own:
        return "—"
    found = summarise([*own.values()])
    text = f"{found.mean:.{column.digits}f}" + (f" ± {found.std:.{column.digits}f}" if found.count > 1 else "")
    theirs = {asset: row[column.name] / column.unit for asset, row in base.items() if row.get(column.name) is not None}
    shared = sorted(own.keys() & theirs.keys())
    if not column.tested or len(shared) < 2:
        return text
    return f"{text} (p {compare([own[a] for a in shared], [theirs[a] for a in shared]).p_t:.2g})"


def _paper_cells(label: str | None) -> tuple[str, str]:
    rows: dict[Cell, tuple[Cell, ...]] = {row[0]: row for number in (2, 3) for row in TABLES[number]}
    if label is None:
        return "—", "—"
    text, image = (cell for cell in rows[label][1:] if isinstance(cell, tuple))
    return f"{text[0]:.2f} ± {text[1]:.1f}", f"{image[0]:.2f} ± {image[1]:.1f}"
