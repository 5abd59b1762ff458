"""Rank an asset's own caption among all by the judge, for true views: `main`.

    python -m benchmarks.judge --assets DIR [--split val] [--limit N] [--sheet FILE]

Prints each asset's own rank and best captions, then one line of JSON: ``r_at_1`` and ``median_rank`` among the
different captions of the split, ``captions`` in number. Chance is 1/captions.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tyro

from benchmarks.assets import load_assets
from benchmarks.text_to_image import true_views
from eval.config import ClipConfig

SHEET_ASSETS, CELL, LINE = 12, 128, 14


@dataclass(kw_only=True, slots=True)
class Arguments:
    """Measure an image-text model on true renders."""

    assets: Path
    """Folder with assets.jsonl and glb/."""
    split: str = "val"
    limit: int | None = None
    clip: ClipConfig = field(default_factory=ClipConfig)
    sheet: Path | None = None
    """Where to write the first twelve views, each over its three best captions; the own one is green."""


def main() -> None:
    """Run the benchmark and print its table."""
    arguments = tyro.cli(Arguments)
    from eval.clip import Scorer

    assets = load_assets(arguments.assets, arguments.split, arguments.limit)
    captions = sorted({asset.caption for asset in load_assets(arguments.assets, arguments.split)})
    views, scorer = true_views(assets), Scorer.load(arguments.clip)
    order = (-(scorer.embed_images(list(views)) @ scorer.embed_texts(captions).T)).argsort(1).numpy()
    ranks, best = [], []
    for asset, found in zip(assets, order, strict=True):
        ranks.append(1 + [captions[i] for i in found].index(asset.caption))
        best.append([captions[i] for i in found[:3]])
        print(f"{asset.caption[:32]:32s} rank {ranks[-1]:3d}   {' | '.join(best[-1])}", flush=True)
    if arguments.sheet:
        write_captioned(arguments.sheet, views[:SHEET_ASSETS], best, [asset.caption for asset in assets])
    result = {"r_at_1": round(float(np.mean(np.equal(ranks, 1))), 3), "median_rank": float(np.median(ranks))}
    print(json.dumps({**result, "captions": len(captions), "assets": len(assets), "judge": scorer.name}))


def write_captioned(path: Path, views: np.ndarray, best: list[list[str]], own: list[str], columns: int = 6) -> None:
    """Views uint8 [B,128,128,C], each over its captions `best`; the asset's `own` one is green."""
    from PIL import Image, ImageDraw, ImageFont

    width, height = CELL + 32, CELL + 4 * LINE
    sheet = Image.new("RGB", (columns * width, -(-len(views) // columns) * height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for k, (view, captions) in enumerate(zip(views, best)):
        x, y = k % columns * width, k // columns * height
        sheet.paste(Image.fromarray(view[..., :3]), (x + 16, y))
        for line, caption in enumerate(captions):
            color = "#1a7f37" if caption == own[k] else "#777777"
            draw.text((x + 4, y + CELL + line * LINE), caption[:28], color, font)
    sheet.save(path, optimize=True)


if __name__ == "__main__":
    main()
