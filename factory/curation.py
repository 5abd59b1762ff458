"""Which assets are trained on: how well their pictures agree with their captions by CLIP, and the best of them (3.2).

    renders/*.parquet ── views ── CLIP ──▶ curated.parquet: one row an asset, score, kept, split
                                           curated.html, histogram.png, kept.png, dropped.png

Nothing is deleted: `im3d finetune` leaves out what is not kept.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from factory.shards import CURATED, Chunk, Index, split_of
from factory.store import Store
from factory.stream import Note, Shards

if TYPE_CHECKING:
    from factory.captions import Captioner

SHEET = 48
CAPTION = 40
"""Pixels of text under a picture."""
BATCH = 64


@dataclass(kw_only=True, slots=True)
class CurateConfig:
    """How assets are judged and chosen."""

    best: int | None = None
    """Keep the so many assets that agree best; None: no limit."""
    threshold: float | None = None
    """Keep assets of at least this score, 100 x cosine; None: no limit."""
    views: int = 2
    """Views of each turntable that are scored, evenly spaced; their mean is the asset's."""

    def __post_init__(self) -> None:
        if self.best is None and self.threshold is None:
            raise ValueError("give --best N or --threshold SCORE, or both; without one nothing would be chosen")
        if self.best is not None and self.best < 1:
            raise ValueError(f"best is {self.best}; it must be at least 1")
        if self.threshold is not None and not np.isfinite(self.threshold):
            raise ValueError(f"threshold is {self.threshold}; it must be a finite score")
        if self.views < 1:
            raise ValueError(f"views is {self.views}; it must be at least 1")


@dataclass(kw_only=True, slots=True)
class Verdict:
    """What was found about an asset; `picture` is its first view, uint8 [S,S,3]."""

    asset_id: str
    caption: str
    score: float
    split: str
    picture: NDArray[np.uint8]
    kept: bool = False


def pictures(index: Index, views: int, note: Note, store: Store) -> Iterator[tuple[str, str, NDArray[np.uint8]]]:
    """Asset, split as the table gives it, and view uint8 [S,S,3], for `views` views of every readable turntable."""
    shards = Shards(store, note)
    for chunk in index.chunks:
        names = _names(store, chunk)
        for row in chunk.rows:
            turntable = shards.turntable(chunk, row)
            if turntable is None:
                break
            for view in range(min(views, turntable.count)):
                try:
                    frame = turntable.frame(view * turntable.count // min(views, turntable.count))
                except (OSError, SyntaxError, ValueError) as error:  # what a broken PNG raises
                    note(f"{chunk.key} row group {chunk.group} row {row}", str(error))
                    continue
                yield *names[row], frame[..., :3]
        shards.forget()


def _names(store: Store, chunk: Chunk) -> list[tuple[str, str]]:
    import pyarrow.parquet as pq

    with store.open(chunk.key) as stream:
        table = pq.ParquetFile(stream).read_row_group(chunk.group, ["asset_id", "split"]).to_pylist()
    return [(row["asset_id"], split_of(row["asset_id"], row["split"])) for row in table]


def recaption(index: Index, captioner: Captioner, replace: bool, note: Note, store: Store) -> int:
    """Caption the assets that have no caption, or all with `replace`, in the index; returns how many."""
    from factory.captions import write_captions

    views = ((asset, picture) for asset, _, picture in pictures(index, 1, note, store))
    made = write_captions(captioner, views, index.captions, replace)
    index.captions |= made
    return len(made)


def judge(index: Index, scorer: Any, views: int, note: Note, store: Store) -> list[Verdict]:
    """The mean score of each asset's views, best first."""
    found: dict[str, Verdict] = {}
    scores: dict[str, list[float]] = {}
    batch: list[tuple[str, str, NDArray[np.uint8]]] = []

    def score() -> None:
        captions = [index.captions[asset] for asset, _, _ in batch]
        values = scorer.text_similarity([picture for _, _, picture in batch], captions)
        for (asset, split, picture), value in zip(batch, values.tolist(), strict=True):
            scores.setdefault(asset, []).append(value)
            known = {"asset_id": asset, "caption": index.captions[asset], "split": split, "picture": picture}
            found.setdefault(asset, Verdict(**known, score=0.0))

    for row in pictures(index, views, note, store):
        batch.append(row)
        if len(batch) == BATCH:
            score()
            batch = []
    if batch:
        score()
    for asset, verdict in found.items():
        verdict.score = float(np.mean(scores[asset]))
    return sorted(found.values(), key=lambda verdict: (-verdict.score, verdict.asset_id))


def choose(verdicts: Sequence[Verdict], config: CurateConfig) -> None:
    """Mark what is kept; `verdicts` are best first.

    Raises:
        ValueError: when nothing would be.
    """
    if not verdicts:
        raise ValueError("no picture of the renders could be read; see the reasons above, and render them again")
    if config.threshold is not None and verdicts[0].score < config.threshold:
        raise ValueError(f"threshold {config.threshold} keeps none of {len(verdicts)} assets, of which the best has "
                         f"{verdicts[0].score:.1f}; lower it, or give --best N alone")  # fmt: skip
    for place, verdict in enumerate(verdicts):
        in_time = config.best is None or place < config.best
        verdict.kept = in_time and (config.threshold is None or verdict.score >= config.threshold)


def write(store: Store, verdicts: Sequence[Verdict], model: str) -> None:
    """Write the table, then what people look at. The score's column carries the model's name."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {"asset_id": v.asset_id, "caption": v.caption, f"clip_text_{model}": v.score, "kept": v.kept, "split": v.split}
        for v in sorted(verdicts, key=lambda v: v.asset_id)
    ]
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), stream)
    store.put(CURATED, stream.getvalue())
    kept, dropped = ([v for v in verdicts if v.kept is wanted] for wanted in (True, False))
    store.put("histogram.png", histogram([v.score for v in kept], [v.score for v in dropped]))
    for name, chosen in (("kept", kept[-SHEET:]), ("dropped", dropped[:SHEET])):
        store.put(f"{name}.png", sheet(chosen))
    store.put("curated.html", page(kept, dropped, model).encode())


def histogram(kept: Sequence[float], dropped: Sequence[float], width: int = 640, height: int = 240) -> bytes:
    """Counts of scores as a PNG: kept blue on top of dropped orange."""
    from PIL import Image, ImageDraw

    values = [*kept, *dropped]
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


def sheet(verdicts: Sequence[Verdict], columns: int = 8, side: int = 96) -> bytes:
    """Pictures with score and caption (two lines of it) under each, as a PNG."""
    from textwrap import wrap

    from PIL import Image, ImageDraw

    lines = max(1, -(-len(verdicts) // columns))
    picture = Image.new("RGB", (columns * side, lines * (side + CAPTION)), "white")
    draw = ImageDraw.Draw(picture)
    for place, verdict in enumerate(verdicts):
        x, y = place % columns * side, place // columns * (side + CAPTION)
        picture.paste(Image.fromarray(verdict.picture).resize((side, side)), (x, y))
        draw.text(
            (x + 2, y + side),
            "\n".join([f"{verdict.score:.1f}", *wrap(verdict.caption, 16)[:2]]),
            fill="black",
            spacing=0,
        )
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def page(kept: Sequence[Verdict], dropped: Sequence[Verdict], model: str) -> str:
    """The decision as HTML beside its pictures."""
    from eval.page import INLINE_POLICY, escape

    head = f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{INLINE_POLICY}">'
    style = "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto}img{max-width:100%}"
    worst = f", the worst at {kept[-1].score:.2f}" if kept else ""
    best = f", the best at {dropped[0].score:.2f}" if dropped else ""
    return (
        f"<!doctype html><html lang=en><head>{head}<title>Curation</title><style>{style}</style></head><body>"
        f"<h1>Curation by {escape(model)}</h1><p>{len(kept)} assets kept{worst}; {len(dropped)} dropped{best}. "
        f'Scores are 100 x cosine of picture and caption.</p><img src="histogram.png" alt="histogram of scores">'
        f'<h2>Kept, the worst {min(SHEET, len(kept))}</h2><img src="kept.png" alt="kept">'
        f'<h2>Dropped, the best {min(SHEET, len(dropped))}</h2><img src="dropped.png" alt="dropped"></body></html>\n'
    )
