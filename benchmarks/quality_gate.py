"""Calibrate the check of finished assets on labelled ones, and judge it on those held back: `calibrate`.

    python -m benchmarks.quality_gate --assets DIR [--limit N] [--progress FILE]
    python -m benchmarks.quality_gate --labels labels.csv --runs RUN [RUN ...] [--write recon/weights/quality]

Two kinds of examples, either or both. Rendered ones: sound and unusable turntables of the meshes in DIR (those of
`benchmarks.yield_gate`, and plates, patches of ground, wrong elevations), fitted as the line fits them. Labelled ones:
assets of runs, whose measures stand in the asset tables and beside the rejected, with a row `prompt_id,usable` (1 or
0) each. A third of the labels, by the digest of the id, and the validation assets are held back. Prints a table by
kind, then a line of JSON: ``roc_auc`` of the rendered and of the labelled, ``brier``, ``calibration_error`` (ten
bins), ``seconds`` of a measurement.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.assets import load_assets
from benchmarks.yield_gate import broken, shows, slight_flaws
from recon.quality import MEASURES
from recon.risk import RiskModel, calibration_error, roc_auc

SIZE, VIEWS = 128, 16
TURNED = ("bend", "twist", "frozen", "swapped")
"""Kinds of failures in time, as `benchmarks.yield_gate` has them."""
KINDS = (*TURNED, "plate", "ground", "elevation")


@dataclass(kw_only=True, slots=True)
class Options:
    """What to calibrate on."""

    assets: Path | None = None
    """Folder with assets.jsonl and glb/, for rendered examples."""
    limit: int = 24
    """Assets of each split, taken at uniform steps."""
    draws: int = 4
    """Turntables of each asset, half of them meant to fail."""
    iterations: int = 400
    """Of each fit."""
    progress: Path | None = None
    """Append every fit's measures here, and go on from there."""
    labels: Path | None = None
    """CSV with the columns prompt_id and usable."""
    runs: tuple[Path, ...] = ()
    """Folders of runs that the labelled assets lie in."""
    seed: int = 0
    """Of elevations and flaws."""
    write: Path | None = None
    """Write the calibrated model to this folder."""


@dataclass(kw_only=True, slots=True)
class Example:
    """A measured asset."""

    id: str
    kind: str
    """Of failure or "clean"; "labelled"."""
    failed: bool
    held_back: bool
    measures: dict[str, float | None]
    seconds: float = field(default=0.0)


def plate(frames: np.ndarray) -> np.ndarray:
    """The first frame as a board that turns: what generators make that know one picture alone."""
    made = np.full_like(frames, 255)
    made[..., 3] = 0
    for number in range(VIEWS):
        width = max(3, round(SIZE * abs(np.cos(2 * np.pi * number / VIEWS))))
        columns = np.linspace(0, SIZE - 1, width).round().astype(int)
        start = (SIZE - width) // 2
        made[number, :, start : start + width] = frames[0][:, columns]
    return made


def ground(frames: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A light patch at the foot of the object that counts as covered: what bad masks leave."""
    made, covered = frames.copy(), frames[..., 3].any((0, 2))
    foot = int(np.flatnonzero(covered)[-1])
    top, side = max(0, foot - int(random.integers(6, 20))), int(random.integers(10, 40))
    patch = made[:, top : foot + 1, side : SIZE - side]
    free = patch[..., 3] < 128
    patch[free] = (*random.integers(225, 250, 3), 255)
    return made


def failure(mesh: Any, elevation: float, kind: str, random: np.random.Generator) -> np.ndarray:
    """An unusable turntable uint8 [V,S,S,4] of one of `KINDS`."""
    from recon.meshes.load import render_turntable

    if kind in TURNED:
        return broken(mesh, elevation, kind, random, SIZE)
    if kind == "elevation":
        return render_turntable(mesh, min(elevation + 0.6, 1.3), SIZE, VIEWS)
    frames = render_turntable(mesh, elevation, SIZE, VIEWS)
    return plate(frames) if kind == "plate" else ground(frames, random)


def fitted(frames: np.ndarray, elevation: float, iterations: int) -> tuple[dict[str, float | None], float]:
    """The measures of the line's own fit of a turntable, and how long the measuring took."""
    from factory.config.settings import preset
    from recon.cameras import OrbitConfig, turntable
    from recon.fit import fit
    from recon.quality import measure

    settings, orbit = preset("pocket").fit, OrbitConfig(num_views=VIEWS)
    config = replace(settings, iterations=iterations, coarse_iterations=iterations // 3)
    gaussians = fit(frames, frames[..., 3], turntable(elevation, SIZE, orbit), config).gaussians
    began = time.process_time()
    angles = [2 * np.pi * number / VIEWS for number in range(VIEWS)]
    return measure(gaussians, frames, elevation, orbit, angles), time.process_time() - began


def turntables(path: Path, index: int, options: Options) -> Iterator[tuple[str, bool, np.ndarray, float]]:
    """(kind, failed, frames, elevation) of one asset; half of them, sound or not, have slight flaws besides."""
    from recon.meshes.load import load_mesh, render_turntable

    mesh, random = load_mesh(path), np.random.default_rng((options.seed, index))
    for draw in range(options.draws):
        elevation, failed = float(random.uniform(0.05, np.pi / 4)), bool(draw % 2)
        truth, kind = render_turntable(mesh, elevation, SIZE, VIEWS), str(random.choice(KINDS)) if failed else "clean"
        frames = failure(mesh, elevation, kind, random) if failed else truth
        if failed and kind != "ground" and not shows(frames, truth):
            continue
        if random.random() < 0.5:
            frames, kind = slight_flaws(frames, random), kind if failed else "slight flaws"
        yield kind, failed, frames, elevation


def rendered(split: str, options: Options) -> list[Example]:
    """Examples of the split's assets, from the progress file where it has them."""
    assert options.assets is not None, "the caller looks"
    lines = options.progress.read_text().splitlines() if options.progress and options.progress.is_file() else []
    known = [Example(**json.loads(line)) for line in lines]
    done, held_back = {example.id for example in known}, split == "val"
    found = [example for example in known if example.held_back == held_back]
    assets = load_assets(options.assets, split)
    count = min(options.limit, len(assets))
    for index in range(count):
        asset = assets[index * len(assets) // count]
        if asset.asset_id in done:
            continue
        fresh = []
        for kind, failed, frames, elevation in turntables(asset.path, index, options):
            measures, seconds = fitted(frames, elevation + float(np.radians(3)), options.iterations)
            fresh.append(Example(id=asset.asset_id, kind=kind, failed=failed, held_back=held_back, measures=measures,
                                 seconds=seconds))  # fmt: skip
        found += fresh
        if options.progress:
            from dataclasses import asdict

            with options.progress.open("a") as file:
                file.writelines(json.dumps(asdict(example)) + "\n" for example in fresh)
    return found


def labelled(options: Options) -> list[Example]:
    """Labelled assets of the runs that have measures."""
    assert options.labels is not None, "the caller looks"
    with options.labels.open(newline="") as file:
        usable = {row["prompt_id"]: row["usable"].strip() == "1" for row in csv.DictReader(file)}
    measures = {name: found for run in options.runs for name, found in measures_of(run).items()}
    return [
        Example(id=name, kind="labelled", failed=not usable[name], held_back=_held_back(name), measures=measures[name])
        for name in usable.keys() & measures.keys()
    ]


def measures_of(run: Path) -> dict[str, dict[str, float | None]]:
    """By prompt the measures of a run's assets, the rejected ones included."""
    import pyarrow.parquet as pq

    rows = [row for part in (run / "assets").glob("*.parquet") for row in pq.read_table(part).to_pylist()]
    rows += [json.loads(file.read_text()) for file in (run / "rejected").glob("*/asset.json")]
    return {
        row["prompt_id"]: {name: row.get(f"quality_{name}") for name in MEASURES}
        for row in rows
        if row.get("usable") is not None
    }


def _held_back(name: str) -> bool:
    from factory.ledger.keys import digest

    return int(digest("quality", name)[:8], 16) % 3 == 0


def judged(model: RiskModel, examples: list[Example]) -> dict[str, Any]:
    """Figures of a model on examples; none where all or none of them failed."""
    failed = np.array([example.failed for example in examples], bool)
    if not len(examples) or failed.all() or not failed.any():
        return {"count": len(examples)}
    scores = np.array([model.probability(example.measures) for example in examples])
    return {
        "count": len(examples),
        "unusable": int(failed.sum()),
        "roc_auc": round(roc_auc(scores, failed), 4),
        "brier": round(float(np.square(scores - failed).mean()), 4),
        "calibration_error": round(calibration_error(scores, failed), 4),
    }


def main(options: Options) -> dict[str, Any]:
    """Run the benchmark and print it; returns the JSON's content."""
    examples = [one for split in ("train", "val") for one in rendered(split, options)] if options.assets else []
    examples += labelled(options) if options.labels else []
    learnt, held_back = ([one for one in examples if one.held_back == held] for held in (False, True))
    model = RiskModel.fit([one.measures for one in learnt], [one.failed for one in learnt], list(MEASURES))
    if options.write:
        model.save(options.write)
    print(f"{'kind':<14} {'count':>5} {'mean risk':>10} {'over 0.5':>9}")
    for kind in ("clean", "slight flaws", *KINDS, "labelled"):
        risks = np.array([model.probability(one.measures) for one in held_back if one.kind == kind])
        if len(risks):
            print(f"{kind:<14} {len(risks):5d} {risks.mean():10.3f} {(risks > 0.5).mean():9.2f}")
    seconds = [one.seconds for one in examples if one.seconds]
    summary = {
        "rendered": judged(model, [one for one in held_back if one.kind != "labelled"]),
        "labelled": judged(model, [one for one in held_back if one.kind == "labelled"]),
        "calibrated_on": len(learnt),
        "seconds": round(float(np.median(seconds)), 2) if seconds else None,
        "weights": dict(zip(model.names, model.weights, strict=True)),
    }
    print(json.dumps(summary))
    return summary


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Options, description=__doc__))
