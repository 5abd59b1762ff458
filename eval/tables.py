"""Write the paper's tables with our rows beside them, as Markdown, LaTeX, CSV or HTML: `paper_table`, `write`."""

from __future__ import annotations

import csv
import html
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from eval.paper import CAPTIONS, COLUMNS, SOURCES, TABLES, Cell
from eval.score_columns import clip_column
from recon.user_error import UserError

Form = Literal["markdown", "latex", "csv", "html"]
_LATEX = {"\\": r"\textbackslash{}", "±": r"$\pm$", "—": "---", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {sign: rf"\{sign}" for sign in "_%&#${}"}


@dataclass(kw_only=True, slots=True)
class Table:
    """`rows` of as many texts as `columns`."""

    caption: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


def own_rows(
    number: int,
    label: str,
    scores: Mapping[str, Mapping[str, Any]],
    models: Sequence[str],
    costs: Mapping[str, float],
) -> list[tuple[Cell, ...]]:
    """A run's rows of table `number`, one for each CLIP model, which the row names.

    Args:
        scores: by column, at least `mean` and `std`, which is nan or None for one prompt.
        costs: `minutes`, `steps` and `forwards` an asset; empty where they are not known.
    """
    costs = {name: round(cost, 2) for name, cost in costs.items()}
    if number == 4:
        return [(label, costs.get("steps"), costs.get("forwards"))]

    rows: list[tuple[Cell, ...]] = []
    for model in models:
        first = [costs.get("minutes"), *_own_cells(scores, "frames", model)] if number == 1 else []
        rows.append((f"{label}, CLIP {model}", *first, *_own_cells(scores, "renders", model)))
    return rows


def _own_cells(scores: Mapping[str, Mapping[str, Any]], views: str, model: str) -> list[Cell]:
    found = [scores.get(clip_column(against, views, model)) for against in ("text", "image")]
    return [(score["mean"], math.nan if score["std"] is None else score["std"]) if score else None for score in found]


def paper_table(number: int, own: Sequence[tuple[Cell, ...]] = ()) -> Table:
    """Table `number` of the paper, then `own` rows. Table 4 counts calls both ways.

    Raises:
        UserError: if the paper has no such table.
    """
    if number not in TABLES:
        raise UserError(f"table {number} not found. Available: {', '.join(map(str, sorted(TABLES)))}")
    columns, rows = COLUMNS[number], list(TABLES[number])
    if number == 4:
        columns = ("model", "network calls (sampler steps)", "forward passes (guidance doubled)")
        rows = [(*row, None) for row in rows]
    texts = [tuple(_text(cell) for cell in row) for row in [*rows, *own]]
    return Table(caption=f"Table {number}. {CAPTIONS[number]} (paper: {SOURCES[number]})", columns=columns, rows=texts)


def write(table: Table, form: Form) -> str:
    """The table as text."""
    if form == "csv":
        stream = io.StringIO()
        csv.writer(stream, lineterminator="\n").writerows([table.columns, *table.rows])
        return stream.getvalue()
    return {"markdown": _markdown, "latex": _latex, "html": _html}[form](table)


def _text(cell: Cell) -> str:
    if isinstance(cell, tuple):
        mean, std = cell
        return f"{mean:.2f}" if math.isnan(std) else f"{mean:.2f} ± {std:.1f}"
    return "—" if cell is None else cell if isinstance(cell, str) else f"{cell:.6g}"


def _markdown(table: Table) -> str:
    lines = [table.columns, ("---",) * len(table.columns), *table.rows]
    escaped = ["| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines]
    return f"{table.caption}\n\n" + "\n".join(escaped) + "\n"


def _latex(table: Table) -> str:
    body = [_latex_line(table.columns), r"\midrule", *map(_latex_line, table.rows)]
    form = "l" + "r" * (len(table.columns) - 1)
    inner = "\n".join([rf"\begin{{tabular}}{{{form}}}", r"\toprule", *body, r"\bottomrule", r"\end{tabular}"])
    return f"\\begin{{table}}\n\\caption{{{_latex_text(table.caption)}}}\n{inner}\n\\end{{table}}\n"


def _latex_line(cells: tuple[str, ...]) -> str:
    return " & ".join(map(_latex_text, cells)) + r" \\"


def _latex_text(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)


def _html(table: Table) -> str:
    rows = "\n".join([_html_line(table.columns, "th"), *(_html_line(row, "td") for row in table.rows)])
    return f"<table>\n<caption>{html.escape(table.caption)}</caption>\n{rows}\n</table>\n"


def _html_line(cells: tuple[str, ...], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"
