"""Write the tables and the picture sheet of an ablation, ablation.md, .csv, .html and sheet.png: `write_report`."""

from __future__ import annotations

import html
import io
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.ablation import Column, Line, Scores, ablation_table
from eval.tables import Table, write
from factory.evaluation.ablation.settings import FULL, TABLES, VARIANTS, AblationConfig
from factory.line.stage import Row
from factory.storage.store import Store
from recon.user_error import UserError

SHEET_ASSETS, SHEET_VIEWS = 6, 2
LABEL_WIDTH = 250


def results_of(rows: Iterable[Row]) -> dict[str, dict[str, Row]]:
    """By variant, by asset: the rows."""
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        found.setdefault(row["variant"], {})[row["asset_id"]] = row
    return found


def tables_of(results: dict[str, dict[str, Row]], config: AblationConfig) -> list[Table]:
    """The tables that have a row beside the full method's."""
    judges = sorted(
        name.removeprefix("clip_text_")
        for name in next(iter(results[FULL].values()), {})
        if name.startswith("clip_text_")
    )
    columns = [
        Column(name="psnr", heading="PSNR, dB"),
        Column(name="lpips", heading="LPIPS", digits=4),
        Column(name="iou", heading="IoU", digits=3),
    ]
    columns += [
        Column(name=f"clip_{against}_{judge}", heading=f"CLIP {against} ({judge})")
        for judge in judges
        for against in ("text", "image")
    ]
    columns += [
        Column(name="seconds", heading="seconds", digits=1, tested=False),
        Column(name="cpu_seconds", heading="CPU seconds", digits=1, tested=False),
        Column(name="peak_bytes", heading="peak MB", digits=0, unit=1e6, tested=False),
        Column(name="forwards", heading="forwards", digits=0, tested=False),
    ]
    found, scores = [], {name: _numbers(rows) for name, rows in results.items()}
    for table, caption in TABLES.items():
        lines = lines_of(table, config)
        made = ablation_table(f"{caption}; {config.targets} targets", FULL, lines, scores, columns)
        if len(made.rows) > 1:
            found.append(made)
    return found


def _numbers(rows: dict[str, Row]) -> Scores:
    return {asset: {name: x for name, x in row.items() if isinstance(x, int | float)} for asset, row in rows.items()}


def _full_line(table: str) -> Line:
    paper = {"loss": "IM-3D (paper)", "frames": "16 (paper)"}.get(table)
    return Line(variant=FULL, label="16 frames (full)" if table == "frames" else "full", paper=paper)


def lines_of(table: str, config: AblationConfig) -> list[Line]:
    """The lines of one of TABLES: the full method, then its variants; says which are not refined where it is."""
    lines = [_full_line(table)]
    for name, variant in VARIANTS.items():
        if variant.table == table:
            bare = config.rounds and table != "rounds" and not config.plan(name).rounds
            label = variant.label + (", not refined" if bare else "")
            lines.append(Line(variant=name, label=label, paper=variant.paper))
    return lines


def picture_sheet(results: dict[str, dict[str, Row]], order: Sequence[str]) -> NDArray[np.uint8]:
    """A row a variant, the truth on top: two unseen views of each of up to six assets, [H,W,3]."""
    from PIL import Image, ImageDraw

    assets = sorted(results[FULL])[:SHEET_ASSETS]
    pictures = {name: {a: _pixels(row) for a, row in results.get(name, {}).items()} for name in order}
    side = next(iter(pictures[FULL].values())).shape[0] // 2
    names = ["truth", *(name for name in order if pictures[name])]
    sheet = Image.new("RGB", (LABEL_WIDTH + len(assets) * SHEET_VIEWS * side, len(names) * side), "white")
    draw = ImageDraw.Draw(sheet)
    for place, name in enumerate(names):
        label = VARIANTS[name].label if name in VARIANTS else name
        draw.text((8, place * side + side // 2 - 6), label, fill="black")
        for column, asset in enumerate(assets):
            pixels = pictures[FULL if name == "truth" else name].get(asset)
            if pixels is not None:
                part = pixels[:side] if name == "truth" else pixels[side:]
                views = np.hstack([part[:, view * 2 * side : (view * 2 + 1) * side] for view in range(SHEET_VIEWS)])
                sheet.paste(Image.fromarray(views), (LABEL_WIDTH + column * SHEET_VIEWS * side, place * side))
    return np.asarray(sheet)


def _pixels(row: Row) -> NDArray[np.uint8]:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(row["picture"]["bytes"])).convert("RGB"))


def write_report(store: Store, rows: Sequence[Row], config: AblationConfig, order: Sequence[str]) -> str:
    """Write the four files; returns the tables as Markdown.

    Raises:
        UserError: if the full method has no fit to compare with.
    """
    from factory.stages.asset_files import png

    results = results_of(rows)
    if FULL not in results:
        raise UserError("no asset was fitted by the full method; see dead_letters/ for the reasons")
    tables = tables_of(results, config)
    text = "\n".join(write(table, "markdown") for table in tables)
    store.put("ablation.md", text.encode())
    store.put("ablation.csv", "\n".join(write(table, "csv") for table in tables).encode())
    store.put("ablation.html", _page(tables).encode())
    store.put("sheet.png", png(picture_sheet(results, order)))
    return text


_STYLE = "body{font:15px system-ui;margin:2em}table{border-collapse:collapse;margin:2em 0}caption{text-align:left;\
font-weight:600;padding:.4em 0}td,th{border:1px solid #ccc;padding:.3em .6em;text-align:right}td:first-child,\
th:first-child{text-align:left}img{max-width:100%}"


def _page(tables: Sequence[Table]) -> str:
    body: Any = "\n".join(write(table, "html") for table in tables)
    note = "Mean ± standard deviation over assets; p: two-sided paired t-test against the full method."
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Ablation</title><style>{_STYLE}</style>\n'
        f"<h1>Ablation</h1><p>{html.escape(note)}</p>\n{body}\n"
        '<img src="sheet.png" alt="A row for each variant, the truth on top"></html>\n'
    )
