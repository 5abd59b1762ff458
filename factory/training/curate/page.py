"""Write the page of a curation, with a histogram, the worst kept and the best dropped: `write_page`."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from textwrap import wrap

import numpy as np

from factory.storage.store import Store
from factory.training.curate.choice import Verdict
from factory.training.curate.stages import SIDE

SHEET = 48
CAPTION = 40
"""Pixels of text under a picture."""
COLUMNS = 8


def shown(verdicts: Sequence[Verdict]) -> tuple[Sequence[Verdict], Sequence[Verdict]]:
    """The worst that are kept and the best that are dropped of training assets, best first."""
    kept, dropped = by_choice(verdicts)
    return kept[-SHEET:], dropped[:SHEET]


def by_choice(verdicts: Sequence[Verdict]) -> tuple[list[Verdict], list[Verdict]]:
    """The training assets that are kept, and those that are not, in the order given."""
    training = [verdict for verdict in verdicts if verdict.split == "train"]
    return [v for v in training if v.kept], [v for v in training if not v.kept]


def write_page(store: Store, verdicts: Sequence[Verdict], pictures: Mapping[str, bytes], model: str) -> None:
    """Write page, histogram and sheets.

    Args:
        verdicts: best first.
        pictures: PNGs of those that are `shown`, by asset.
        model: who judged.
    """
    kept, dropped = by_choice(verdicts)
    store.put("histogram.png", histogram([v.score for v in kept], [v.score for v in dropped]))
    for name, part in zip(("kept", "dropped"), shown(verdicts), strict=True):
        store.put(f"{name}.png", sheet(part, pictures))
    others = len(verdicts) - len(kept) - len(dropped)
    store.put("curated.html", page(kept, dropped, others, model).encode())


def histogram(kept: Sequence[float], dropped: Sequence[float], width: int = 640, height: int = 240) -> bytes:
    """Counts of scores as a PNG: kept blue on top of dropped orange."""
    from PIL import Image, ImageDraw

    values = [*kept, *dropped] or [0.0]
    edges = np.linspace(min(values), max(values) + 1e-6, 41)
    counts = [np.histogram(part, edges)[0] for part in (kept, dropped)]
    most, bar = max(1, int((counts[0] + counts[1]).max())), width / 40
    picture = Image.new("RGB", (width, height + 20), "white")
    draw = ImageDraw.Draw(picture)
    for place, (blue, orange) in enumerate(zip(*counts, strict=True)):
        top = height * (1 - (blue + orange) / most)
        middle = height * (1 - orange / most)
        for count, high, low, color in ((blue, top, middle, "#27608b"), (orange, middle, height, "#d2691e")):
            if count:
                draw.rectangle([place * bar, high, (place + 1) * bar - 2, low], fill=color)
    draw.text((2, height + 5), f"{edges[0]:.1f}", fill="black")
    draw.text((width - 40, height + 5), f"{edges[-1]:.1f}", fill="black")
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def sheet(verdicts: Sequence[Verdict], pictures: Mapping[str, bytes]) -> bytes:
    """Pictures with score and caption (two lines of it) under each, as a PNG."""
    from PIL import Image, ImageDraw

    lines = max(1, -(-len(verdicts) // COLUMNS))
    picture = Image.new("RGB", (COLUMNS * SIDE, lines * (SIDE + CAPTION)), "white")
    draw = ImageDraw.Draw(picture)
    for place, verdict in enumerate(verdicts):
        x, y = place % COLUMNS * SIDE, place // COLUMNS * (SIDE + CAPTION)
        picture.paste(Image.open(io.BytesIO(pictures[verdict.asset_id])), (x, y))
        text = "\n".join([f"{verdict.score:.1f}", *wrap(verdict.caption, 16)[:2]])
        draw.text((x + 2, y + SIDE), text, fill="black", spacing=0)
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def page(kept: Sequence[Verdict], dropped: Sequence[Verdict], others: int, model: str) -> str:
    """The decision as HTML beside its pictures; `others` assets are for validation."""
    from eval.page import INLINE_POLICY, escape

    head = f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{INLINE_POLICY}">'
    style = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto}img{max-width:100%}"
    worst = f", the worst at {kept[-1].score:.2f}" if kept else ""
    best = f", the best at {dropped[0].score:.2f}" if dropped else ""
    return (
        f"<!doctype html><html lang=en><head>{head}<title>Curation</title><style>{style}</style></head><body>"
        f"<h1>Curation by {escape(model)}</h1><p>{len(kept)} training assets kept{worst}; {len(dropped)} dropped{best}."
        f" {others} for validation, all kept."
        f' Scores are 100 x cosine of picture and caption.</p><img src="histogram.png" alt="histogram of scores">'
        f'<h2>Kept, the worst {min(SHEET, len(kept))}</h2><img src="kept.png" alt="kept">'
        f'<h2>Dropped, the best {min(SHEET, len(dropped))}</h2><img src="dropped.png" alt="dropped"></body></html>\n'
    )
