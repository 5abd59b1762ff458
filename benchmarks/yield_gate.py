"""Calibrate the yield gate on generated failures and judge it on assets held back: `calibrate`.

    python -m benchmarks.yield_gate --assets DIR [--limit N] [--write recon/weights/yield]

Every asset gives sound turntables and unusable ones: the object bends or twists while it turns, frames freeze, are left
out or change places, colours flicker. Half of both have the slight flaws besides that a fit absorbs. A failure that no
frame shows (a bottle looks the same from everywhere) is left out. The model is fitted on the training split, and judged
on the validation split. Prints a table by kind, then one line of JSON: ``roc_auc``, ``roc_auc_by_kind`` (each kind
against all that are sound), ``brier``, ``calibration_error`` (ten bins), ``seconds_per_turntable``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.assets import load_assets
from recon.risk import RiskModel, calibration_error, roc_auc

SIZE, VIEWS = 64, 16
VISIBLE = 0.12
"""A failure counts where its worst frame differs from the true one by this much colour, root mean square over the
object."""


@dataclass(kw_only=True, slots=True)
class Options:
    """What to calibrate on."""

    assets: Path
    """Folder with assets.jsonl and glb/."""
    limit: int = 24
    """Assets of each split, taken at uniform steps."""
    draws: int = 4
    """Turntables of each asset, half of them meant to fail."""
    seed: int = 0
    """Of elevations and flaws."""
    progress: Path | None = None
    """Append every turntable's features here, and go on from there."""
    write: Path | None = None
    """Write the calibrated model to this folder."""


def render(mesh: Any, elevation: float, shape: Callable[[float], Any] | None = None, size: int = SIZE) -> np.ndarray:
    """A turntable uint8 [V,S,S,4]; `shape` gives the mesh at each moment in [0, 1)."""
    from recon.meshes.load import render_turntable

    if shape is None:
        return render_turntable(mesh, elevation, size, VIEWS)
    turns = np.arange(VIEWS) / VIEWS
    return np.concatenate([render_turntable(shape(t), elevation, size, 1, 2 * np.pi * t) for t in turns])


def deformed(mesh: Any, kind: str, amount: float, cycles: int) -> Callable[[float], Any]:
    """The mesh bent or twisted by a moving `amount`, `cycles` times a turn."""

    def at(moment: float) -> Any:
        x, y, z = np.moveaxis(mesh.corners, -1, 0)
        now = amount * np.sin(2 * np.pi * cycles * moment)
        if kind == "twist":
            sine, cosine = np.sin(now * 2 * y), np.cos(now * 2 * y)
            moved = (x * cosine + z * sine, y, z * cosine - x * sine)
        else:
            moved = (x + now * (y * y - 0.3), y, z + 0.5 * now * (x * x - 0.3))
        return replace(mesh, corners=np.stack(moved, -1).astype(np.float32))

    return at


def slight_flaws(frames: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Jitter of a pixel, a little blur, noise and flicker: what good generators leave."""
    pixels = frames.astype(np.float32)
    pixels[..., :3] -= 255
    shifts = random.integers(-1, 2, (VIEWS, 2)) * (random.random() < 0.5)
    pixels = np.stack([np.roll(frame, shift, (0, 1)) for frame, shift in zip(pixels, shifts, strict=True)])
    if random.random() < 0.5:
        pixels = (np.roll(pixels, 1, 1) + 2 * pixels + np.roll(pixels, -1, 1)) / 4
        pixels = (np.roll(pixels, 1, 2) + 2 * pixels + np.roll(pixels, -1, 2)) / 4
    gains = 1 + random.uniform(0, 0.06) * random.standard_normal((VIEWS, 1, 1, 1))
    pixels[..., :3] = pixels[..., :3] * gains + 255
    noise = random.uniform(0, 6) * random.standard_normal(pixels.shape) * (pixels[..., 3:] > 0)
    return np.rint(pixels + noise).clip(0, 255).astype(np.uint8)


def broken(mesh: Any, elevation: float, kind: str, random: np.random.Generator, size: int = SIZE) -> np.ndarray:
    """An unusable turntable of one of `KINDS`."""
    if kind in ("bend", "twist"):
        moving = deformed(mesh, kind, random.uniform(0.3, 0.9), int(random.integers(1, 4)))
        return render(mesh, elevation, moving, size)
    frames, start = render(mesh, elevation, size=size), int(random.integers(VIEWS))
    frames, count = np.roll(frames, -start, 0), int(random.integers(3, 7))
    if kind == "frozen":
        frames[1 : 1 + count] = frames[0]
    elif kind == "dropped":
        kept = np.r_[0, 1 + count : VIEWS]
        frames = frames[kept[np.arange(VIEWS) * len(kept) // VIEWS]]
    elif kind == "swapped":
        places = random.choice(VIEWS, count, replace=False)
        frames[places] = frames[np.roll(places, 1)]
    elif kind == "flicker":
        gains = random.uniform(0.5, 1.5, (VIEWS, 1, 1, 3))
        frames[..., :3] = np.rint(255 + (frames[..., :3] - 255.0) * gains).clip(0, 255)
    return np.roll(frames, start, 0)


KINDS = ("bend", "twist", "frozen", "dropped", "swapped", "flicker")


def shows(frames: np.ndarray, truth: np.ndarray) -> bool:
    """Whether some frame differs visibly from the true one."""
    area = np.maximum((truth[..., 3] / 255).sum((1, 2)), 1)
    error = np.square((frames[..., :3] - truth[..., :3].astype(np.float32)) / 255).mean(-1).sum((1, 2))
    return bool(np.sqrt(error / area).max() > VISIBLE)


def turntables(path: Path, index: int, options: Options) -> Iterator[tuple[str, bool, np.ndarray, float]]:
    """(kind, failed, frames, elevation) of one asset; half of them, sound or not, have slight flaws besides."""
    from recon.meshes.load import load_mesh

    mesh, random = load_mesh(path), np.random.default_rng((options.seed, index))
    for draw in range(options.draws):
        elevation = float(random.uniform(0.05, np.pi / 4))
        truth, failed = render(mesh, elevation), bool(draw % 2)
        kind, flawed = str(random.choice(KINDS)) if failed else "clean", random.random() < 0.5
        frames = broken(mesh, elevation, kind, random) if failed else truth
        if failed and not shows(frames, truth):
            continue
        if flawed:
            frames, kind = slight_flaws(frames, random), kind if failed else "slight flaws"
        yield kind, failed, frames, elevation


def collect(split: str, options: Options) -> list[dict[str, Any]]:
    """Features of every turntable of the split's assets, from the progress file where it has them."""
    from recon.yield_gate import measure

    found = _read(options.progress)
    known, rows = {row["id"] for row in found}, [row for row in found if row["split"] == split]
    assets = load_assets(options.assets, split)
    count = min(options.limit, len(assets))
    for index in range(count):
        asset = assets[index * len(assets) // count]
        if asset.asset_id in known:
            continue
        fresh = []
        for kind, failed, frames, elevation in turntables(asset.path, index, options):
            began = time.process_time()
            features = measure(frames, frames[..., 3], elevation + float(np.radians(3)))
            seconds = time.process_time() - began
            fresh.append({"id": asset.asset_id, "split": split, "kind": kind, "failed": failed, "seconds": seconds,
                          "features": features})  # fmt: skip
        rows += fresh
        if options.progress:
            with options.progress.open("a") as file:
                file.writelines(json.dumps(row) + "\n" for row in fresh)
    return rows


def _read(progress: Path | None) -> list[dict[str, Any]]:
    if progress is None or not progress.is_file():
        return []
    return [json.loads(line) for line in progress.read_text().splitlines()]


def calibrate(rows: list[dict[str, Any]]) -> RiskModel:
    """The model that fits the rows."""
    from recon.yield_gate import FEATURES

    return RiskModel.fit([row["features"] for row in rows], [row["failed"] for row in rows], list(FEATURES))


def main(options: Options) -> dict[str, Any]:
    """Run the benchmark and print it; returns the JSON's content."""
    train, held_back = collect("train", options), collect("val", options)
    model = calibrate(train)
    if options.write:
        model.save(options.write)
    scores = np.array([model.probability(row["features"]) for row in held_back])
    failed = np.array([row["failed"] for row in held_back])
    kinds, by_kind = np.array([row["kind"] for row in held_back]), {}
    print(f"{'kind':<14} {'count':>5} {'mean score':>10} {'over 0.5':>9} {'AUC against sound':>18}")
    for kind in ("clean", "slight flaws", *KINDS):
        chosen, alone = scores[kinds == kind], ~failed | (kinds == kind)
        if not len(chosen):
            continue
        if kind in KINDS:
            by_kind[kind] = round(roc_auc(scores[alone], failed[alone]), 4)
        over = (chosen > 0.5).mean()
        print(f"{kind:<14} {len(chosen):5d} {chosen.mean():10.3f} {over:9.2f} {by_kind.get(kind, ''):>18}")
    summary = {
        "roc_auc": round(roc_auc(scores, failed), 4),
        "roc_auc_by_kind": by_kind,
        "brier": round(float(np.square(scores - failed).mean()), 4),
        "calibration_error": round(calibration_error(scores, failed), 4),
        "seconds_per_turntable": round(float(np.median([row["seconds"] for row in train + held_back])), 2),
        "calibrated_on": len(train),
        "held_back": len(held_back),
    }
    print(json.dumps(summary))
    return summary


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Options, description=__doc__))
