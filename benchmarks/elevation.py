"""Measure the elevation of unseen turntables, by the estimator alone and corrected by outlines: `main`.

    python -m benchmarks.elevation --assets DIR [--split val] [--limit N] [--weights DIR] [--generated]
        [--plot FILE.svg]

Prints one line an asset, the estimator's errors before the corrected ones, then one line of JSON: ``mae_degrees`` of
what the factory uses (`recon.coherence`), ``estimator_mae_degrees`` of the network alone (A.1), and
``baseline_mae_degrees`` of always guessing the middle of the range.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tyro

from benchmarks.assets import load_assets
from benchmarks.curves import scatter
from factory.config.settings import ViewsConfig, preset
from model.config import VideoConfig
from recon.config import OrbitConfig


@dataclass(kw_only=True, slots=True)
class Arguments:
    """Measure how well the elevation is found."""

    assets: Path
    """Folder with assets.jsonl and glb/."""
    split: str = "val"
    limit: int | None = None
    weights: str = "pocket"
    """'pocket', or the estimator's folder."""
    turntables: int = 4
    """Turntables of each asset, one in each equal part of 0 to 45 degrees, from a random azimuth."""
    generated: bool = False
    """Give turntables that the video model makes of the true first frame, instead of true ones."""
    video: VideoConfig = field(default_factory=lambda: preset("pocket").video)
    plot: Path | None = None
    """Where to write found over true elevations as SVG."""


def main() -> None:
    """Run the benchmark and print its table."""
    arguments = tyro.cli(Arguments)
    import torch

    from factory.stages.find_views import ViewFinder
    from model.video import load_video_model
    from model.views import uniform_views
    from recon.elevation import MAX_ELEVATION
    from recon.meshes.load import load_mesh, render_turntable

    torch.set_num_threads(1)
    finder = ViewFinder(ViewsConfig(estimator=arguments.weights), OrbitConfig())
    model = load_video_model(arguments.video) if arguments.generated else None
    rows, seconds = [], []
    for index, asset in enumerate(load_assets(arguments.assets, arguments.split, arguments.limit)):
        mesh, random, found = load_mesh(asset.path), np.random.default_rng(index), []
        for part in range(arguments.turntables):
            elevation = MAX_ELEVATION * (part + random.uniform()) / arguments.turntables
            frames = render_turntable(mesh, elevation, 128, start_azimuth=random.uniform(0, 2 * np.pi))
            if model:
                frames = model.generate(frames[:1], [asset.caption], [index])[0]
            began = time.process_time()
            corrected = finder.find(frames, uniform_views(len(frames))).elevation
            seconds.append(time.process_time() - began)
            assert finder.estimator is not None
            found.append((elevation, finder.estimator.estimate(frames), corrected))
        rows += found
        errors = np.degrees([(abs(answer - true), abs(corrected - true)) for true, answer, corrected in found])
        print(f"{asset.caption[:32]:32s} " + "  ".join("{:5.1f} {:5.1f}".format(*pair) for pair in errors), flush=True)
    true, answer, corrected = np.degrees(rows).T
    if arguments.plot:
        arguments.plot.write_text(scatter("found over true elevation (degrees)", true, corrected))
    errors = abs(corrected - true)
    result = {
        "mae_degrees": errors.mean(), "median_degrees": np.median(errors), "worst_degrees": errors.max(),
        "estimator_mae_degrees": abs(answer - true).mean(),
        "baseline_mae_degrees": abs(np.degrees(MAX_ELEVATION / 2) - true).mean(),
        "cpu_seconds_per_turntable": np.median(seconds),
    }  # fmt: skip
    print(json.dumps({**{name: round(float(value), 2) for name, value in result.items()}, "turntables": len(errors)}))


if __name__ == "__main__":
    main()
