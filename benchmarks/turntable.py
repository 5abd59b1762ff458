"""Measure the turntable model on real assets, given the true first frame: `measure`.

python -m benchmarks.turntable --assets DIR [--split val] [--limit N] [--video.guidance-scale G] [--sheet FILE]
    [--plot FILE.svg]

The baseline repeats the first frame; a white background flatters both PSNRs alike. The last line of output is JSON:
means over frames 1-15, and the same figures for every azimuth under `by_azimuth`.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.assets import load_assets
from benchmarks.curves import curves
from eval.fidelity import lpips
from factory.config.settings import preset
from model.config import VideoConfig

CHANCE = 3 / 16
"""Share of rotation hits of a frame that is equally near to all true ones."""


@dataclass(kw_only=True, slots=True)
class Arguments:
    """Measure a turntable model against true renders."""

    assets: Path
    """Folder with assets.jsonl and glb/."""
    split: str = "val"
    limit: int | None = None
    video: VideoConfig = field(default_factory=lambda: preset("pocket").video)
    elevation_degrees: tuple[float, float] = (5.0, 40.0)
    """Range of the true cameras' elevation, drawn by asset."""
    refine: bool = False
    """Also noise and denoise the true frames once, as an upper bound of what refinement keeps."""
    sheet: Path | None = None
    """Where to write a contact sheet: true frames over generated ones."""
    plot: Path | None = None
    """Where to write quality at every azimuth as SVG."""


def masked_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two coverages uint8 [...], thresholded at one half."""
    a, b = a > 127, b > 127
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 1.0


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of uint8 images of equal shape, at most 60."""
    error = np.square((a.astype(np.float64) - b) / 255).mean()
    return float(-10 * np.log10(max(error, 1e-6)))


def rotation_hits(frames: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Whether the true frame nearest to each of frames 1.. lies within one step of its own azimuth: bool [15]."""
    count = len(truth)
    error = np.square(frames[:, None, ..., :3].astype(np.float32) - truth[None, ..., :3]).mean((2, 3, 4))
    offset = (error.argmin(1) - np.arange(count) + count // 2) % count - count // 2
    return np.abs(offset[1:]) <= 1


def by_azimuth(frames: np.ndarray, truth: np.ndarray, network: Any = None) -> dict[str, np.ndarray]:
    """Figures [15] of frames 1-15 [16,S,S,4] against the truth, and of the first frame repeated; a network: LPIPS."""
    still = np.repeat(truth[:1], len(truth), 0)
    scores: dict[str, np.ndarray] = {}
    for name, video in (("", frames), ("baseline_", still)):
        pairs = list(zip(video[1:], truth[1:], strict=True))
        scores[f"{name}psnr"] = np.array([psnr(a[..., :3], b[..., :3]) for a, b in pairs])
        scores[f"{name}iou"] = np.array([masked_iou(a[..., 3], b[..., 3]) for a, b in pairs])
        if network is not None:
            scores[f"{name}lpips"] = lpips(video[1:, ..., :3].copy(), truth[1:, ..., :3].copy(), network)
    return {**scores, "rotation_hit_rate": rotation_hits(frames, truth).astype(float)}


def measure(frames: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Means over frames 1-15 of `by_azimuth`."""
    return {name: float(values.mean()) for name, values in by_azimuth(frames, truth).items()}


def plot(figures: dict[str, np.ndarray]) -> str:
    """Figures [15] by azimuth, as `by_azimuth` names them, as one SVG; what repeats the first frame is grey."""
    degrees = 360 / 16 * np.arange(1, 16)
    chance = np.full(15, CHANCE)
    panels = (
        ("PSNR (dB)", figures["psnr"], figures["baseline_psnr"]),
        ("mask IoU", figures["iou"], figures["baseline_iou"]),
        ("rotation hits", figures["rotation_hit_rate"], chance),
    )
    return curves([(f"{title} by azimuth (degrees)", degrees, lines) for title, *lines in panels])


def main() -> None:
    """Run the benchmark and print its table."""
    arguments = tyro.cli(Arguments)
    from model.video import load_video_model
    from recon.meshes.load import load_mesh, render_turntable
    from recon.perceptual import load_perceptual

    network = load_perceptual("pocket")
    model = load_video_model(arguments.video)
    low, high = np.radians(arguments.elevation_degrees)
    rows, sheet, seconds = [], [], []
    for index, asset in enumerate(load_assets(arguments.assets, arguments.split, arguments.limit)):
        elevation = float(np.random.default_rng(index).uniform(low, high))
        truth = render_turntable(load_mesh(asset.path), elevation, 128)
        began = time.perf_counter()
        frames = model.generate(truth[:1], [asset.caption], [index])[0]
        seconds.append(time.perf_counter() - began)
        rows.append(by_azimuth(frames, truth, network))
        if arguments.refine:
            kept = model.refine(truth[None], truth[:1], [asset.caption], [index])[0]
            rows[-1]["refined_truth_psnr"] = by_azimuth(kept, truth)["psnr"]
        print(f"{asset.caption[:32]:32s} " + "  ".join(f"{k} {v.mean():6.2f}" for k, v in rows[-1].items()), flush=True)
        sheet += [np.concatenate(list(truth[::2, ..., :3]), 1), np.concatenate(list(frames[::2, ..., :3]), 1)]
    if arguments.sheet:
        from PIL import Image

        Image.fromarray(np.concatenate(sheet)).save(arguments.sheet)
    views = {key: np.mean([row[key] for row in rows], 0) for key in rows[0]}
    if arguments.plot:
        arguments.plot.write_text(plot(views))
    result = {key: round(float(values.mean()), 3) for key, values in views.items()}
    result |= {"seconds_per_video": round(float(np.median(seconds)), 2), "assets": len(rows)}
    print(json.dumps({**result, "by_azimuth": {key: values.round(3).tolist() for key, values in views.items()}}))


if __name__ == "__main__":
    main()
