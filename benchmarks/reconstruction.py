"""Fit Gaussians to true renders of assets and judge them on views between those fitted: `fit_asset`.

    python -m benchmarks.reconstruction --assets DIR [--split val] [--limit N] [--fit.iterations 1200]
    nice python -m benchmarks.reconstruction --assets DIR --threads 1 --progress FILE.jsonl   # goes on where it stopped

Prints a table, then one line of JSON: ``psnr`` (dB, over white), ``iou`` (masks at half coverage),
``lpips`` (the network named in ``lpips_network``), ``seconds_per_fit`` (wall), ``cpu_seconds_per_fit``
(of all threads, which other programs disturb less). With ``--mesh extracted`` or ``optimised`` also
PSNR, IoU, LPIPS, Chamfer distance and F-score of the mesh made from each fit.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from factory.config.settings import preset
from recon.config import FitConfig

if TYPE_CHECKING:
    from recon.gaussians import Gaussians

UNSEEN_VIEWS = 8


@dataclass(kw_only=True, slots=True)
class Options:
    """What to fit and how."""

    assets: Path
    """Folder with assets.jsonl and glb/."""
    split: str = "val"
    """Rows of assets.jsonl whose split this is."""
    limit: int | None = None
    """At most this many assets, taken at uniform steps through the split."""
    size: int = 128
    """Pixels a side."""
    views: int = 16
    """Views to fit to."""
    seed: int = 0
    """Of elevations and fits."""
    threads: int = 2
    """CPU threads of a fit."""
    progress: Path | None = None
    """Append every asset's figures here as a line of JSON, and leave out assets that have one already."""
    mesh: Literal["none", "extracted", "optimised"] = "none"
    """Also judge the mesh that `--mesh.enabled` would write, or with `--mesh.optimise`, on the same views and by its
    surface."""
    sheet: Path | None = None
    """Write a PNG here: for every asset the unseen views, true above fitted, and below those of its mesh."""
    fit: FitConfig = field(default_factory=lambda: preset("pocket").fit)


def chosen_assets(options: Options) -> list[dict[str, Any]]:
    """The rows of the split, thinned to the limit.

    Raises:
        ValueError: if the folder has no such rows.
    """
    table = options.assets / "assets.jsonl"
    if not table.is_file():
        raise ValueError(f"{table} does not exist; give --assets a folder with assets.jsonl and glb/")
    rows = [json.loads(line) for line in table.read_text().splitlines() if line.strip()]
    rows = [row for row in rows if row["split"] == options.split]
    if not rows:
        raise ValueError(f"{table} has no rows with split {options.split!r}")
    count = min(options.limit or len(rows), len(rows))
    return [rows[index * len(rows) // count] for index in range(count)]


def fit_asset(path: Path, elevation: float, options: Options, perceptual: Any) -> tuple[dict[str, Any], np.ndarray]:
    """Figures of one asset, and its sheet [2S,8S,3] of true and fitted unseen views; with a mesh [3S,8S,3]."""
    from factory.evaluation.truth import judge, true_turntable
    from recon.cameras import OrbitConfig, turntable
    from recon.fit import fit
    from recon.gaussians import render
    from recon.meshes.load import load_mesh, render_turntable

    mesh, between = load_mesh(path), math.pi / options.views
    frames = true_turntable(mesh, elevation, options.size, options.views)
    truth = true_turntable(mesh, elevation, options.size, UNSEEN_VIEWS, between)
    started, cpu_started = time.perf_counter(), time.process_time()
    result = fit(frames, None, turntable(elevation, options.size, OrbitConfig(num_views=options.views)),
                 options.fit, options.seed)  # fmt: skip
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu_started
    unseen = turntable(elevation, options.size, OrbitConfig(num_views=UNSEEN_VIEWS), between)
    rgb, alpha = (image.detach().cpu().numpy() for image in render(result.gaussians, unseen))
    figures = judge(truth, rgb, alpha[..., 0], perceptual)
    figures |= {"seconds_per_fit": seconds, "cpu_seconds_per_fit": cpu, "gaussians": len(result.gaussians)}
    shown = [truth[..., :3], (rgb.clip(0, 1) * 255).astype(np.uint8)]
    if options.mesh != "none":
        targets = {"targets": frames, "masks": frames[..., 3], "cameras": result.cameras}
        of_mesh, glb = mesh_figures(result.gaussians, targets, path, elevation, options, perceptual)
        figures |= of_mesh
        made = render_turntable(load_mesh(glb, in_place=True), elevation, options.size, UNSEEN_VIEWS, between)
        shown.append(made[..., :3])
    return figures, np.concatenate([np.concatenate(list(images), 1) for images in shown])


def mesh_figures(
    gaussians: Gaussians, targets: dict[str, Any], path: Path, elevation: float, options: Options, perceptual: Any
) -> tuple[dict[str, float | None], bytes]:
    """Figures of `factory.evaluation.fidelity.compare`, each named "mesh_...", the seconds that the mesh took, and it.

    Args:
        targets: what `recon.dmtet.optimise.optimised_mesh` takes.
    """
    from factory.evaluation.fidelity import compare
    from factory.evaluation.viewable_asset import Solid, Turn
    from recon.cameras import OrbitConfig
    from recon.config import MeshConfig
    from recon.dmtet.optimise import optimised_mesh
    from recon.mesh import glb_bytes, meshes_of
    from recon.meshes.load import load_mesh

    turn = Turn(elevation=elevation, size=options.size, orbit=OrbitConfig(num_views=options.views))
    started, cpu_started = time.perf_counter(), time.process_time()
    if options.mesh == "optimised":
        levels = optimised_mesh(gaussians, targets, MeshConfig(), options.fit, seed=options.seed)[0]
    else:
        levels = meshes_of(gaussians, MeshConfig(), targets["cameras"])
    glb = glb_bytes(levels)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu_started
    mesh, truth = Solid(load_mesh(glb, in_place=True), fine=True), Solid(load_mesh(path), fine=True)
    found = compare(mesh, truth, turn, perceptual)
    figures = {f"mesh_{name}": value for name, value in found.items()}
    figures |= {"mesh_seconds": seconds, "mesh_cpu_seconds": cpu, "mesh_faces": len(levels[0].faces)}
    return figures, glb


def done_before(progress: Path | None) -> dict[str, dict[str, Any]]:
    """Figures by asset id of an earlier, unfinished run."""
    if progress is None or not progress.is_file():
        return {}
    return {row["id"]: row for row in map(json.loads, progress.read_text().splitlines())}


def summary_of(rows: list[dict[str, Any]], options: Options) -> dict[str, Any]:
    """The JSON's content: means, and how many assets reach the goals of 31 dB and IoU 0.98."""
    names = ["psnr", "iou", "lpips", "seconds_per_fit", "cpu_seconds_per_fit", "gaussians"]
    names += [name for name in rows[0] if name.startswith("mesh_") and all(row.get(name) is not None for row in rows)]
    found: dict[str, Any] = {name: round(float(np.mean([row[name] for row in rows])), 4) for name in names}
    found |= {
        "psnr_min": round(min(row["psnr"] for row in rows), 2),
        "iou_min": round(min(row["iou"] for row in rows), 4),
        "share_psnr_31": round(float(np.mean([row["psnr"] >= 31 for row in rows])), 3),
        "share_iou_98": round(float(np.mean([row["iou"] >= 0.98 for row in rows])), 3),
    }
    return found | {
        "assets": len(rows), "size": options.size, "threads": options.threads, "lpips_network": "pocket",
    }  # fmt: skip


def main(options: Options) -> dict[str, Any]:
    """Run the benchmark and print it; returns the JSON's content."""
    import numba
    import torch

    from recon.perceptual import load_perceptual

    numba.set_num_threads(options.threads)
    torch.set_num_threads(options.threads)
    perceptual, random = load_perceptual("pocket"), np.random.default_rng(options.seed)
    rows, sheets, known = [], [], done_before(options.progress)
    print(f"{'asset':<40} {'elev':>5} {'psnr':>6} {'iou':>6} {'lpips':>6} {'points':>6} {'wall s':>7} {'cpu s':>6}")
    for asset in chosen_assets(options):
        elevation = float(random.uniform(0, math.pi / 4))
        row = known.get(asset["id"])
        if row is None:
            figures, sheet = fit_asset(options.assets / asset["path"], elevation, options, perceptual)
            row = {"id": asset["id"], "elevation": elevation, **figures}
            sheets.append(sheet)
            if options.progress:
                with options.progress.open("a") as file:
                    file.write(json.dumps(row) + "\n")
        rows.append(row)
        print(
            f"{asset['id'][:40]:<40} {math.degrees(elevation):5.1f} {row['psnr']:6.2f} {row['iou']:6.4f} "
            f"{row['lpips']:6.4f} {row['gaussians']:6.0f} {row['seconds_per_fit']:7.1f} "
            f"{row['cpu_seconds_per_fit']:6.1f}",
            flush=True,
        )
    if options.sheet and sheets:
        from PIL import Image

        Image.fromarray(np.concatenate(sheets)).save(options.sheet)
    summary = summary_of(rows, options)
    print(json.dumps(summary))
    return summary


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Options, description=__doc__))
