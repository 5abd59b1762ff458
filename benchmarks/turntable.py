"""The turntable model on real assets: given the true first frame, how near are the other fifteen?

python -m benchmarks.turntable --assets DIR [--split val] [--limit N] [--video.guidance-scale G] [--sheet FILE]

The baseline repeats the first frame; a white background flatters both PSNRs alike.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tyro

from benchmarks.assets import load_assets
from factory.config import preset
from model.config import VideoConfig


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


def masked_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two coverages uint8 [...], thresholded at one half."""
    a, b = a > 127, b > 127
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 1.0


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of uint8 images of equal shape, at most 60."""
    error = np.square((a.astype(np.float64) - b) / 255).mean()
    return float(-10 * np.log10(max(error, 1e-6)))


def rotation_hits(frames: np.ndarray, truth: np.ndarray) -> float:
    """Share of frames 1.. whose nearest true frame lies within one step of its own azimuth."""
    count = len(truth)
    error = np.square(frames[:, None, ..., :3].astype(np.float32) - truth[None, ..., :3]).mean((2, 3, 4))
    offset = (error.argmin(1) - np.arange(count) + count // 2) % count - count // 2
    return float((np.abs(offset[1:]) <= 1).mean())


def measure(frames: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Figures of frames 1-15 [16,S,S,4] against the truth, and of the first frame repeated."""
    still = np.repeat(truth[:1], len(truth), 0)
    scores = {}
    for name, video in (("", frames), ("baseline_", still)):
        scores[f"{name}psnr"] = np.mean(
            [psnr(a[..., :3], b[..., :3]) for a, b in zip(video[1:], truth[1:], strict=True)]
        )
        scores[f"{name}iou"] = np.mean(
            [masked_iou(a[..., 3], b[..., 3]) for a, b in zip(video[1:], truth[1:], strict=True)]
        )
    return {**scores, "rotation_hit_rate": rotation_hits(frames, truth)}


def main() -> None:
    """Run the benchmark and print its table."""
    arguments = tyro.cli(Arguments)
    from factory.meshes import load_mesh, render_turntable
    from model.video import load_video_model

    model = load_video_model(arguments.video)
    low, high = np.radians(arguments.elevation_degrees)
    rows, sheet, seconds = [], [], []
    for index, asset in enumerate(load_assets(arguments.assets, arguments.split, arguments.limit)):
        elevation = float(np.random.default_rng(index).uniform(low, high))
        truth = render_turntable(load_mesh(asset.path), elevation, 128)
        began = time.perf_counter()
        frames = model.generate(truth[:1], [asset.caption], [index])[0]
        seconds.append(time.perf_counter() - began)
        rows.append(measure(frames, truth))
        if arguments.refine:
            kept = model.refine(truth[None], truth[:1], [asset.caption], [index])[0]
            rows[-1]["refined_truth_psnr"] = measure(kept, truth)["psnr"]
        print(f"{asset.caption[:32]:32s} " + "  ".join(f"{k} {v:6.2f}" for k, v in rows[-1].items()), flush=True)
        sheet += [np.concatenate(list(truth[::2, ..., :3]), 1), np.concatenate(list(frames[::2, ..., :3]), 1)]
    if arguments.sheet:
        from PIL import Image

        Image.fromarray(np.concatenate(sheet)).save(arguments.sheet)
    result = {key: round(float(np.mean([row[key] for row in rows])), 3) for key in rows[0]}
    print(json.dumps({**result, "seconds_per_video": round(float(np.median(seconds)), 2), "assets": len(rows)}))


if __name__ == "__main__":
    main()
