"""Correlate measures of consistency, which know no truth, with nearness to the truth: `correlations`.

    python -m benchmarks.consistency --assets DIR [--split train] [--limit 12] [--progress FILE.jsonl]

For every asset the pocket video model turns the true first view into a turntable, Gaussians are fitted to it at the
true elevation, and both the measures of `im3d evaluate --consistency` and the fidelity on unseen true views are taken.
Prints Spearman's rank correlation of every measure with PSNR, LPIPS, mask IoU and Chamfer distance, then one line
of JSON with the correlations with PSNR.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.assets import Asset, load_assets
from recon.config import FitConfig

AGAINST = ("psnr_renders", "lpips_pocket_renders", "mask_iou_renders", "chamfer")


@dataclass(kw_only=True, slots=True)
class Options:
    """What to measure."""

    assets: Path
    """Folder with assets.jsonl and glb/."""
    split: str = "train"
    """Rows of assets.jsonl whose split this is."""
    limit: int = 12
    """Assets, taken at uniform steps."""
    size: int = 128
    """Pixels a side, the pocket video model's."""
    seed: int = 0
    """Of elevations, turntables and fits."""
    threads: int = 1
    """CPU threads."""
    progress: Path | None = None
    """Append every asset's figures here as a line of JSON, and leave out assets that have one already."""
    fit: FitConfig = field(default_factory=lambda: FitConfig(iterations=400))


def measure(asset: Asset, elevation: float, options: Options, model: Any, judge: Any) -> dict[str, Any]:
    """Consistency and fidelity of one asset's generated turntable."""
    from factory.evaluation.fidelity import compare
    from factory.evaluation.viewable_asset import Solid, Splats, Turn
    from recon.fit import fit
    from recon.masks import masks_of
    from recon.meshes.load import load_mesh

    truth, turn = Solid(load_mesh(asset.path), fine=True), Turn(elevation=elevation, size=options.size)
    first = truth.pictures(Turn(elevation=elevation, size=options.size, orbit=type(turn.orbit)(num_views=1)))[0]
    frames = model.generate(first[None], [asset.caption], [options.seed])[0]
    masks = masks_of(frames, judge.masker)
    shape = Splats(fit(frames, masks, turn.cameras, options.fit, options.seed).gaussians)
    return {
        "id": asset.asset_id,
        **judge.measure(np.ascontiguousarray(frames[..., :3]), turn, shape),
        **compare(shape, truth, turn, judge.network),
    }


def rows_of(options: Options) -> list[dict[str, Any]]:
    """The figures of every asset, from the progress file where it has them."""
    from factory.config.settings import preset
    from factory.evaluation.consistency import ConsistencyJudge
    from model.video import load_video_model
    from recon.perceptual import load_perceptual

    known = {}
    if options.progress and options.progress.is_file():
        known = {row["id"]: row for row in map(json.loads, options.progress.read_text().splitlines())}
    assets, random, rows = load_assets(options.assets, options.split), np.random.default_rng(options.seed), []
    model, judge = load_video_model(preset("pocket").video), ConsistencyJudge(load_perceptual("pocket"))
    count = min(options.limit, len(assets))
    for asset in (assets[index * len(assets) // count] for index in range(count)):
        elevation = float(random.uniform(0, math.radians(40)))
        row = known.get(asset.asset_id) or measure(asset, elevation, options, model, judge)
        rows.append(row)
        if options.progress and asset.asset_id not in known:
            with options.progress.open("a") as file:
                file.write(json.dumps(row) + "\n")
    return rows


def correlations(rows: list[dict[str, Any]], measures: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Spearman's rank correlation by measure and figure of fidelity, over the rows that have both."""
    from scipy.stats import spearmanr

    found: dict[str, dict[str, float]] = {}
    for name in measures:
        for figure in AGAINST:
            pairs = [(row[name], row[figure]) for row in rows if row[name] is not None and row[figure] is not None]
            value = float(spearmanr(*zip(*pairs)).statistic) if len(pairs) > 2 else math.nan  # pyright: ignore
            found.setdefault(name, {})[figure] = value
    return found


def main(options: Options) -> dict[str, Any]:
    """Run the benchmark and print it; returns the JSON's content."""
    from factory.evaluation.consistency import COLUMNS
    from factory.line.stage import use_threads

    use_threads(options.threads)
    rows = rows_of(options)
    found = correlations(rows, COLUMNS)
    print(f"{'measure':<22}" + "".join(f"{name:>18}" for name in AGAINST) + f"{'median':>12}")
    for name, values in found.items():
        middle = np.median([row[name] for row in rows if row[name] is not None])
        print(f"{name:<22}" + "".join(f"{values[figure]:18.2f}" for figure in AGAINST) + f"{middle:12.4f}")
    summary = {name: round(values["psnr_renders"], 3) for name, values in found.items()} | {"assets": len(rows)}
    print(json.dumps(summary))
    return summary


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Options, description=__doc__))
