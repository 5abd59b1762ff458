"""Measure what rounds of re-denoising (3.4) do to fits of turntables that are generated, true or inconsistent: `main`.

    python -m benchmarks.refinement --assets DIR [--split val] [--limit N] [--flaws clean jitter] [--progress FILE]

The fit gets the true elevation and the refiner the true first frame; views between the frames are judged against the
true object. Prints a line for every asset and flaw, a table, then one line of JSON: ``psnr``, ``iou`` and ``lpips`` by
flaw and number of rounds, and ``p_lpips``, the paired t-test over assets of the most rounds against none.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray

from benchmarks.assets import Asset, load_assets
from benchmarks.robustness import LEVELS, degraded
from factory.config.settings import FactoryConfig, preset

UNSEEN_VIEWS, SIZE, VIEWS = 8, 128, 16
FLAWS = ("generated", "clean", "jitter", "blur", "colour", "bad frames", "doubled")
FIGURES = ("psnr", "iou", "lpips")


@dataclass(kw_only=True, slots=True)
class Arguments:
    """Compare numbers of refinement rounds."""

    assets: Path
    """Folder with assets.jsonl and glb/."""
    split: str = "val"
    limit: int | None = None
    flaws: tuple[str, ...] = FLAWS
    """Where the frames come from: the turntable model, or true renders as they are or with a flaw at the stronger
    level of `benchmarks.robustness`; "doubled" frames are the mean of two neighbours."""
    rounds: tuple[int, ...] = (0, 1, 2)
    """How many of the settings' rounds to run, rising from 0."""
    progress: Path | None = None
    """Append every figure here as a line of JSON, and leave out what has one already."""
    settings: FactoryConfig = field(default_factory=lambda: preset("pocket"))

    def __post_init__(self) -> None:
        if not set(self.flaws) <= set(FLAWS):
            raise ValueError(f"flaws are {self.flaws}; give some of {', '.join(FLAWS)}")
        if self.rounds[0] != 0 or list(self.rounds) != sorted(set(self.rounds)):
            raise ValueError(f"rounds are {self.rounds}; give 0 and more, rising")


def frames_of(flaw: str, truth: NDArray[np.uint8], model: Any, prompt: str, seed: int) -> NDArray[np.uint8]:
    """The turntable to fit, uint8 [16,S,S,4], of true frames of that shape."""
    if flaw == "generated":
        return model.generate(truth[:1], [prompt], [seed])[0]
    if flaw == "doubled":
        pair = truth.astype(np.uint16) + np.roll(truth, -1, 0)
        return (pair // 2).astype(np.uint8)
    return degraded(truth, flaw, LEVELS[flaw][-1], np.random.default_rng(seed))[0]


def figures(arguments: Arguments, asset: Asset, seed: int, model: Any, network: Any, known: set[tuple]) -> Iterator:
    """A row for every flaw and number of rounds of an asset that is not `known`."""
    from factory.evaluation.truth import judge, true_turntable
    from factory.stages.reconstruct import CountingRefiner
    from recon.cameras import OrbitConfig, turntable
    from recon.gaussians import render
    from recon.meshes.load import load_mesh
    from recon.refine import LoopConfig, Turntable, reconstruct

    settings, mesh = arguments.settings, load_mesh(asset.path)
    elevation = float(np.random.default_rng(seed).uniform(*np.radians((5, 40))))
    truth = true_turntable(mesh, elevation, SIZE, VIEWS)
    between = math.pi / VIEWS
    unseen = true_turntable(mesh, elevation, SIZE, UNSEEN_VIEWS, between)
    cameras = turntable(elevation, SIZE, OrbitConfig(num_views=UNSEEN_VIEWS), between)
    for flaw in arguments.flaws:
        frames = frames_of(flaw, truth, model, asset.caption, seed)
        given = Turntable(
            frames=frames, masks=frames[..., 3], elevation=elevation, image=truth[0], prompt=asset.caption
        )
        for rounds in arguments.rounds:
            if (asset.asset_id, flaw, rounds) in known:
                continue
            refine = replace(settings.refine, rounds_at=settings.refine.rounds_at[:rounds])
            loop = LoopConfig(fit=settings.fit, refine=refine)
            gaussians, _ = reconstruct(given, loop, CountingRefiner(model), seed=seed)
            rgb, alpha = (image.numpy() for image in render(gaussians, cameras))
            row = {"asset": asset.asset_id, "flaw": flaw, "rounds": rounds}
            yield row | judge(unseen, rgb, alpha[..., 0], network)


def summary_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The JSON's content, from rows of every asset, flaw and number of rounds."""
    from eval.statistics import compare

    by: dict[str, dict[int, dict[str, dict[str, float]]]] = {}
    for row in rows:
        by.setdefault(row["flaw"], {}).setdefault(row["rounds"], {})[row["asset"]] = row
    summary: dict[str, Any] = {
        name: {
            flaw: {rounds: round(float(np.mean([row[name] for row in found.values()])), 4)
                   for rounds, found in counts.items()}
            for flaw, counts in by.items()
        }
        for name in FIGURES
    }  # fmt: skip
    summary["p_lpips"] = {}
    for flaw, counts in by.items():
        none, most = counts[0], counts[max(counts)]
        both = sorted(none.keys() & most.keys())
        if len(both) > 1 and most is not none:
            pair = [[found[asset]["lpips"] for asset in both] for found in (most, none)]
            summary["p_lpips"][flaw] = round(compare(*pair).p_t, 4)
    return summary | {"assets": len({row["asset"] for row in rows})}


def main() -> None:
    """Run the benchmark and print its table."""
    arguments = tyro.cli(Arguments)
    from model.video import load_video_model
    from recon.perceptual import load_perceptual

    model, network = load_video_model(arguments.settings.video), load_perceptual("pocket")
    progress, rows = arguments.progress, []
    if progress and progress.is_file():
        rows = [json.loads(line) for line in progress.read_text().splitlines()]
    known = {(row["asset"], row["flaw"], row["rounds"]) for row in rows}
    for seed, asset in enumerate(load_assets(arguments.assets, arguments.split, arguments.limit)):
        for row in figures(arguments, asset, seed, model, network, known):
            rows.append(row)
            print(f"{asset.caption[:28]:28s} {row['flaw']:10s} {row['rounds']} rounds  "
                  + "  ".join(f"{name} {row[name]:7.3f}" for name in FIGURES), flush=True)  # fmt: skip
            if progress:
                with progress.open("a") as stream:
                    stream.write(json.dumps(row) + "\n")
    summary = summary_of(rows)
    print(f"\n{'flaw':12s}" + "".join(f"{name} by rounds{'':18s}" for name in FIGURES) + "p of LPIPS")
    for flaw in summary["psnr"]:
        cells = (" ".join(f"{value:8.4f}" for value in summary[name][flaw].values()) for name in FIGURES)
        print(f"{flaw:12s}" + "   ".join(cells) + f"   {summary['p_lpips'].get(flaw, math.nan):.4f}")
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
