"""Compare fits of generated turntables with 0, 1 and 2 rounds of re-denoising (3.4): `main`.

    python -m benchmarks.refinement --assets DIR [--split val] [--limit N]

The turntable model gets the true first frame and the true elevation; renders of the fits are judged
against the true frames 1-15. Prints a table, then one line of JSON: ``psnr_0``, ``psnr_1``, ``psnr_2``
and ``iou_*`` by number of rounds.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.assets import load_assets
from factory.config.settings import FactoryConfig, preset

ROUNDS = ((), (500,), (500, 1000))


@dataclass(kw_only=True, slots=True)
class Arguments:
    """Compare numbers of refinement rounds on generated turntables."""

    assets: Path
    """Folder with assets.jsonl and glb/."""
    split: str = "val"
    limit: int | None = None
    settings: FactoryConfig = field(default_factory=lambda: preset("pocket"))


def figures(settings: FactoryConfig, model: Any, truth: np.ndarray, elevation: float, prompt: str, seed: int) -> dict:
    """PSNR and IoU of frames 1-15 of the fit of one generated turntable, for each number of rounds."""
    from benchmarks.turntable import measure
    from factory.stages.reconstruct import CountingRefiner
    from recon.cameras import turntable
    from recon.refine import LoopConfig, Turntable, reconstruct, views_of

    frames = model.generate(truth[:1], [prompt], [seed])[0]
    given = Turntable(frames=frames, masks=frames[..., 3], elevation=elevation, image=truth[0], prompt=prompt)
    found = {}
    for rounds in ROUNDS:
        loop = LoopConfig(fit=settings.fit, refine=replace(settings.refine, rounds_at=rounds))
        gaussians, _ = reconstruct(given, loop, CountingRefiner(model), seed=seed)
        scores = measure(views_of(gaussians, turntable(elevation, truth.shape[1]), 4), truth)
        found |= {f"{name}_{len(rounds)}": scores[name] for name in ("psnr", "iou")}
    return found


def main() -> None:
    """Run the benchmark and print its table."""
    arguments = tyro.cli(Arguments)
    from model.video import load_video_model
    from recon.meshes.load import load_mesh, render_turntable

    model = load_video_model(arguments.settings.video)
    rows = []
    for index, asset in enumerate(load_assets(arguments.assets, arguments.split, arguments.limit)):
        elevation = float(np.random.default_rng(index).uniform(*np.radians((5, 40))))
        truth = render_turntable(load_mesh(asset.path), elevation, 128)
        rows.append(figures(arguments.settings, model, truth, elevation, asset.caption, index))
        print(f"{asset.caption[:32]:32s} " + "  ".join(f"{k} {v:6.2f}" for k, v in rows[-1].items()), flush=True)
    result = {key: round(float(np.mean([row[key] for row in rows])), 3) for key in rows[0]}
    print(json.dumps({**result, "assets": len(rows)}))


if __name__ == "__main__":
    main()
