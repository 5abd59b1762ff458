"""Measure how fits bear views that are jittered, blurred, off in colour, out of order or elevation: `measure`.

    nice python -m benchmarks.robustness --assets DIR [--split train] [--limit 4] [--progress FILE.jsonl]

True turntables are degraded by each flaw at two levels, fitted in several ways and judged on true views between the
targets. Prints a table, then one line of JSON: ``psnr``, ``lpips`` and ``iou`` by flaw and fit; ``loss_of_10_degrees``,
the dB that an elevation error of 10 degrees costs, without and with the elevation optimised; ``p_lpips_over_rgb``, by
flaw, the paired t-test over assets of the LPIPS that fits with LPIPS and with RGB L2 in its place reach.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.assets import load_assets
from recon.config import FitConfig

VIEWS, UNSEEN_VIEWS = 16, 8
LEVELS: dict[str, tuple[float, ...]] = {
    "clean": (0,), "jitter": (0.01, 0.03), "blur": (0.01, 0.02), "colour": (0.1, 0.3), "bad frames": (1, 3),
    "elevation": (5, 10),
}  # fmt: skip
"""Shift of each frame and blur as shares of the side, deviation of gains, frames that show the back, degrees."""


@dataclass(kw_only=True, slots=True)
class Options:
    """What to fit and how."""

    assets: Path
    """Folder with assets.jsonl and glb/."""
    split: str = "train"
    limit: int = 4
    """At most this many assets, taken at uniform steps through the split."""
    size: int = 64
    """Pixels a side."""
    seed: int = 0
    fits: tuple[str, ...] = ("full", "rgb", "robust", "elevation")
    """Ways to fit: these, and "all poses" (elevation, each view's place and exposure); "full" must be among them."""
    flaws: tuple[str, ...] = tuple(LEVELS)
    """What is wrong with the frames; "clean" must be among them."""
    strongest: bool = False
    """Only the stronger level of each flaw."""
    threads: int = 1
    """CPU threads of a fit."""
    progress: Path | None = None
    """Append every fit's figures here as a line of JSON, and leave out fits that have one already."""
    sheet: Path | None = None
    """Write a PNG of the first asset here: a row a flaw, the truth, a degraded target, then each fit."""
    fit: FitConfig = field(default_factory=lambda: FitConfig(iterations=500, num_points=2000))

    def __post_init__(self) -> None:
        ways = fits_of(self.fit)
        if "full" not in self.fits or not set(self.fits) <= set(ways):
            raise ValueError(f"fits are {self.fits}; give full and others of {', '.join(ways)}")
        if "clean" not in self.flaws or not set(self.flaws) <= set(LEVELS):
            raise ValueError(f"flaws are {self.flaws}; give clean and others of {', '.join(LEVELS)}")


def fits_of(config: FitConfig) -> dict[str, FitConfig]:
    """The ways to fit, by name."""
    return {
        "full": config,
        "rgb": replace(config, loss=replace(config.loss, lpips=0.0, rgb=10.0)),
        "robust": replace(config, robust=2.0),
        "elevation": replace(config, pose=replace(config.pose, elevation=True)),
        "all poses": replace(config, pose=replace(config.pose, elevation=True, views=True, exposure=True)),
    }


def degraded(
    frames: NDArray[np.uint8], flaw: str, level: float, random: np.random.Generator
) -> tuple[NDArray[np.uint8], float]:
    """Frames [V,S,S,4] with a flaw, and the error of the elevation in radians."""
    from scipy import ndimage

    pixels, side = frames.astype(np.float32), frames.shape[1]
    if flaw == "jitter":
        pixels[..., :3] -= 255
        shifts = random.uniform(-level * side, level * side, (len(frames), 2))
        pixels = np.stack([ndimage.shift(f, (*s, 0), order=1) for f, s in zip(pixels, shifts, strict=True)])
        pixels[..., :3] += 255
    elif flaw == "blur":
        pixels = np.asarray(ndimage.gaussian_filter(pixels, (0, level * side, level * side, 0), mode="nearest"))
    elif flaw == "colour":
        gains = 1 + level * random.standard_normal((len(frames), 1, 1, 3))
        pixels[..., :3] += (gains - 1) * (pixels[..., :3] - 255 + pixels[..., 3:])
    elif flaw == "bad frames":
        places = random.choice(len(frames), int(level), replace=False)
        pixels[places] = pixels[(places + len(frames) // 2) % len(frames)]
    error = math.radians(level) if flaw == "elevation" else 0.0
    return np.rint(pixels).clip(0, 255).astype(np.uint8), error


def measure(path: Path, asset: str, options: Options, known: dict[tuple, dict], perceptual: Any):
    """(row, picture [S,3S,3] of truth, target and fit) of every flaw and fit of an asset; no picture of known rows."""
    from factory.evaluation.truth import judge, true_turntable
    from recon.cameras import OrbitConfig, turntable
    from recon.fit import fit
    from recon.gaussians import render
    from recon.meshes.load import load_mesh

    key, mesh = (options.seed, int.from_bytes(asset.encode()[-4:])), load_mesh(path)
    elevation = float(np.random.default_rng(sum(key)).uniform(0.1, math.pi / 4 - 0.1))
    frames = true_turntable(mesh, elevation, options.size, VIEWS)
    truth = true_turntable(mesh, elevation, options.size, UNSEEN_VIEWS, math.pi / VIEWS)
    unseen = turntable(elevation, options.size, OrbitConfig(num_views=UNSEEN_VIEWS), math.pi / VIEWS)
    ways = {name: fits_of(options.fit)[name] for name in options.fits}
    for flaw in options.flaws:
        for level in LEVELS[flaw][-1:] if options.strongest else LEVELS[flaw]:
            targets, error = degraded(frames, flaw, level, np.random.default_rng((*key, len(flaw))))
            for name, config in ways.items():
                if (asset, flaw, level, name) in known:
                    yield known[asset, flaw, level, name], None
                    continue
                result = fit(targets, None, turntable(elevation + error, options.size), config, options.seed)
                rgb, alpha = (image.numpy() for image in render(result.gaussians, unseen))
                row = {"asset": asset, "flaw": flaw, "level": level, "fit": name}
                shown = (truth[0, ..., :3], targets[0, ..., :3], (255 * rgb[0].clip(0, 1)).astype(np.uint8))
                yield row | judge(truth, rgb, alpha[..., 0], perceptual), np.hstack(shown)


def read_progress(progress: Path | None) -> dict[tuple, dict]:
    """Rows of an earlier, unfinished run."""
    if progress is None or not progress.is_file():
        return {}
    rows = [json.loads(line) for line in progress.read_text().splitlines()]
    return {(row["asset"], row["flaw"], row["level"], row["fit"]): row for row in rows}


def summary_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The JSON's content."""
    from eval.statistics import compare

    found: dict[tuple[str, str], dict[str, dict[str, float]]] = {}
    for row in rows:
        flaw = f"{row['flaw']} {row['level']:g}" if row["level"] else row["flaw"]
        found.setdefault((flaw, row["fit"]), {})[row["asset"]] = {name: row[name] for name in ("psnr", "lpips", "iou")}
    flaws = list(dict.fromkeys(flaw for flaw, _ in found))
    names = list(dict.fromkeys(name for _, name in found))

    def mean(flaw: str, name: str, figure: str) -> float:
        return float(np.mean([scores[figure] for scores in found[flaw, name].values()]))

    summary: dict[str, Any] = {
        figure: {flaw: {name: round(mean(flaw, name, figure), 4) for name in names} for flaw in flaws}
        for figure in ("psnr", "lpips", "iou")
    }
    assets = sorted(found[flaws[0], names[0]])
    if len(assets) > 1 and "rgb" in names:
        by_fit = {flaw: [[found[flaw, n][a]["lpips"] for a in assets] for n in ("full", "rgb")] for flaw in flaws}
        summary["p_lpips_over_rgb"] = {flaw: round(compare(*pair).p_t, 4) for flaw, pair in by_fit.items()}
    if "elevation 10" in flaws:
        lost = {n: round(mean("clean", "full", "psnr") - mean("elevation 10", n, "psnr"), 2) for n in names}
        summary["loss_of_10_degrees"] = {"without": lost["full"], "with": lost.get("elevation")}
    return summary | {"assets": len(assets)}


def print_table(summary: dict[str, Any]) -> None:
    """PSNR / LPIPS by flaw and fit, for people."""
    names = list(next(iter(summary["psnr"].values())))
    print(f"{'flaw':<14}" + "".join(f"{name:>18}" for name in names))
    for flaw, scores in summary["psnr"].items():
        cells = (f"{scores[name]:.2f} / {summary['lpips'][flaw][name]:.4f}" for name in names)
        print(f"{flaw:<14}" + "".join(f"{cell:>18}" for cell in cells))


def main(options: Options) -> dict[str, Any]:
    """Run the benchmark and print it; returns the JSON's content."""
    import numba
    import torch

    from recon.perceptual import load_perceptual

    numba.set_num_threads(options.threads)
    torch.set_num_threads(options.threads)
    known, rows, pictures = read_progress(options.progress), [], []
    assets = load_assets(options.assets, options.split)
    count, perceptual = min(options.limit, len(assets)), load_perceptual("pocket")
    for index in range(count):
        asset = assets[index * len(assets) // count]
        for row, picture in measure(asset.path, asset.asset_id, options, known, perceptual):
            rows.append(row)
            if picture is not None and index == 0:
                pictures.append(picture)
            if picture is not None and options.progress:
                with options.progress.open("a") as file:
                    file.write(json.dumps(row) + "\n")
    if options.sheet and pictures and not known:
        save_sheet(pictures, len(options.fits), options.sheet)
    summary = summary_of(rows)
    print_table(summary)
    print(json.dumps(summary))
    return summary


def save_sheet(pictures: list[NDArray[np.uint8]], fits: int, path: Path) -> None:
    """A row a flaw from triples [S,3S,3]: truth, target, then the fits' renders."""
    from PIL import Image

    side, lines = pictures[0].shape[0], []
    for first in range(0, len(pictures), fits):
        line = pictures[first : first + fits]
        lines.append(np.hstack([line[0][:, : 2 * side], *(picture[:, 2 * side :] for picture in line)]))
    Image.fromarray(np.concatenate(lines)).save(path)


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Options, description=__doc__))
