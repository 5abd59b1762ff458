"""Rank text-to-image pictures of real captions by a judge that shares nothing with the generator: `retrieval`.

python -m benchmarks.text_to_image --assets DIR [--split val] [--limit N] [--sheet FILE] [--one-a-noun]

Each picture is compared with its own caption and 19 others drawn at random from the assets' other
captions; `r_at_1_of_20` is the share whose own caption wins. `recombined_r_at_1_of_20` is the same
for colour-object prompts that no caption holds. `real_r_at_1_of_20` is the judge on true renders.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.assets import Asset, load_assets
from benchmarks.sheet import write_sheet
from eval.config import ClipConfig
from factory.config.settings import preset
from model.config import ImageConfig

NUM_CHOICES = 20


@dataclass(kw_only=True, slots=True)
class Arguments:
    """Measure a text-to-image model by a judge's retrieval of its prompts."""

    assets: Path
    """Folder with assets.jsonl and glb/."""
    split: str = "val"
    limit: int | None = None
    image: ImageConfig = field(default_factory=lambda: preset("pocket").image)
    clip: ClipConfig = field(default_factory=ClipConfig)
    seed: int = 0
    one_a_noun: bool = False
    """Only the asset with the shortest caption for every last word: a world of distinct kinds."""
    sheet: Path | None = None
    """Where to write a contact sheet of the pictures."""


def shortest_by_noun(assets: list[Asset]) -> list[Asset]:
    """The asset with the shortest caption for every last word, colour words left out; the first of equals."""
    from model.pocket.data import recolored_caption

    found: dict[str, tuple[int, Asset]] = {}
    for asset in assets:
        words = recolored_caption(asset.caption, None)
        noun = words.split()[-1]
        if noun not in found or len(words) < found[noun][0]:
            found[noun] = (len(words), asset)
    return [asset for _, asset in found.values()]


def recombined(captions: list[str], count: int, rng: np.random.Generator) -> list[str]:
    """`count` prompts "a COLOUR NOUN" that are no caption, of nouns that are."""
    from model.pocket.data import COLORS, recolored_caption

    known = set(captions)
    nouns = sorted({recolored_caption(caption, None) for caption in captions})
    pairs = [recolored_caption(noun, color) for noun in nouns for color in COLORS]
    return [str(p) for p in rng.permutation([pair for pair in pairs if pair not in known])[:count]]


def retrieval(scorer: Any, images: np.ndarray, prompts: list[str], pool: list[str], rng: np.random.Generator) -> float:
    """Share of pictures uint8 [B,S,S,C] whose own prompt scores above 19 distractors from `pool`."""
    hits = []
    for image, prompt in zip(images, prompts, strict=True):
        others = [str(p) for p in rng.permutation([p for p in sorted(set(pool)) if p != prompt])[: NUM_CHOICES - 1]]
        scores = scorer.embed_images([image]) @ scorer.embed_texts([prompt, *others]).T
        hits.append(bool(scores.argmax() == 0))
    return float(np.mean(hits))


def generate(model: Any, prompts: list[str], seed: int, batch: int = 16) -> np.ndarray:
    """Pictures uint8 [B,S,S,C] of the prompts."""
    parts = [prompts[i : i + batch] for i in range(0, len(prompts), batch)]
    seeds = iter(range(seed, seed + len(prompts)))
    return np.concatenate([model.generate(part, [next(seeds) for _ in part]) for part in parts])


def true_views(assets: list[Asset]) -> np.ndarray:
    """The front view uint8 [B,128,128,4] of each asset at 20 degrees of elevation."""
    from recon.meshes.load import load_mesh, render_turntable

    return np.stack([render_turntable(load_mesh(asset.path), np.radians(20), 128, 1)[0] for asset in assets])


def main() -> None:
    """Run the benchmark and print its table."""
    arguments = tyro.cli(Arguments)
    from eval.clip import Scorer
    from model.image import load_image_model

    rng = np.random.default_rng(arguments.seed)
    assets = load_assets(arguments.assets, arguments.split, None)
    assets = (shortest_by_noun(assets) if arguments.one_a_noun else assets)[: arguments.limit]
    every = [asset.caption for asset in load_assets(arguments.assets, None)]
    model, scorer = load_image_model(arguments.image), Scorer.load(arguments.clip)
    captions = [asset.caption for asset in assets]
    invented = recombined(every, len(captions), rng)
    images = {
        name: generate(model, prompts, arguments.seed) for name, prompts in (("", captions), ("recombined_", invented))
    }
    result = {
        "r_at_1_of_20": retrieval(scorer, images[""], captions, every, rng),
        "recombined_r_at_1_of_20": retrieval(scorer, images["recombined_"], invented, invented + every, rng),
        "real_r_at_1_of_20": retrieval(scorer, true_views(assets), captions, every, rng),
    }
    if arguments.sheet:
        write_sheet(arguments.sheet, np.concatenate(list(images.values())))
    for name, value in result.items():
        print(f"{name:28s} {value:6.3f}")
    print(json.dumps({**{k: round(v, 3) for k, v in result.items()}, "judge": scorer.name, "prompts": len(captions)}))


if __name__ == "__main__":
    main()
