"""The elevation estimator on true turntables that it was not trained on.

    python -m benchmarks.elevation --assets DIR [--split val] [--limit N] [--weights DIR] [--plot FILE.svg]

Prints one line an asset, then one line of JSON: ``mae_degrees`` over all turntables, ``baseline_mae_degrees`` of
always guessing the middle of the range.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from benchmarks.assets import load_assets
from benchmarks.curves import scatter
from recon.elevation import POCKET_WEIGHTS


@dataclass(kw_only=True, slots=True)
class Arguments:
    """Measure the elevation estimator."""

    assets: Path
    """Folder with assets.jsonl and glb/."""
    split: str = "val"
    limit: int | None = None
    weights: Path = POCKET_WEIGHTS
    """The estimator's folder."""
    turntables: int = 4
    """Turntables of each asset, one in each equal part of 0 to 45 degrees, from a random azimuth."""
    plot: Path | None = None
    """Where to write estimated over true elevations as SVG."""


def main() -> None:
    """Run the benchmark and print its table."""
    arguments = tyro.cli(Arguments)
    import torch

    from factory.dino import load_estimator
    from factory.meshes import load_mesh, render_turntable
    from recon.elevation import MAX_ELEVATION

    torch.set_num_threads(1)
    network, errors, baseline, pairs = load_estimator(arguments.weights), [], [], []
    for index, asset in enumerate(load_assets(arguments.assets, arguments.split, arguments.limit)):
        mesh, random = load_mesh(asset.path), np.random.default_rng(index)
        found = []
        for part in range(arguments.turntables):
            elevation = MAX_ELEVATION * (part + random.uniform()) / arguments.turntables
            frames = render_turntable(mesh, elevation, 128, 4, random.uniform(0, 2 * np.pi))
            pairs.append(np.degrees([elevation, network.estimate(frames)]))
            found.append(abs(pairs[-1][1] - pairs[-1][0]))
            baseline.append(np.degrees(abs(MAX_ELEVATION / 2 - elevation)))
        errors += found
        print(f"{asset.caption[:32]:32s} " + "  ".join(f"{error:5.1f}" for error in found), flush=True)
    if arguments.plot:
        true, estimated = np.transpose(pairs)
        arguments.plot.write_text(scatter("estimated over true elevation (degrees)", true, estimated))
    result = {"mae_degrees": np.mean(errors), "median_degrees": np.median(errors), "worst_degrees": np.max(errors)}
    result["baseline_mae_degrees"] = np.mean(baseline)
    rounded = {name: round(float(value), 2) for name, value in result.items()}
    print(json.dumps({**rounded, "turntables": len(errors)}))


if __name__ == "__main__":
    main()
