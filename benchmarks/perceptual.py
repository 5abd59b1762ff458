"""Check that the perceptual distance grows with what is done to a picture: `main`.

    python -m benchmarks.perceptual --assets DIR [--split val] [--limit N] [--plot FILE.svg]

Front views over white are blurred, shifted and made noisy, each in eight growing strengths. Prints the mean distance
by strength, then one line of JSON: ``rising``, the share of single steps up in strength that raise the distance of
a single picture, by distortion, and ``distance`` at the largest strength.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from benchmarks.assets import load_assets
from benchmarks.curves import curves
from benchmarks.text_to_image import true_views

STRENGTHS = {
    "blur": np.linspace(0.5, 4, 8),
    "shift": np.arange(1, 9),
    "noise": np.linspace(0.02, 0.16, 8),
}
"""Standard deviation in pixels, pixels to the right, and standard deviation of colours in [0,1]."""


@dataclass(kw_only=True, slots=True)
class Arguments:
    """Measure a perceptual network on distorted views."""

    assets: Path
    """Folder with assets.jsonl and glb/."""
    split: str = "val"
    limit: int | None = None
    network: str = "pocket"
    """As `fit.loss.perceptual`."""
    plot: Path | None = None
    """Where to write the mean distance by strength as SVG."""


def distorted(image: np.ndarray, kind: str, strength: float) -> np.ndarray:
    """A picture float32 [S,S,3] in [0,1] after one of STRENGTHS."""
    if kind == "blur":
        from scipy.ndimage import gaussian_filter

        return gaussian_filter(image, (strength, strength, 0))
    if kind == "shift":
        return np.concatenate([np.ones_like(image[:, : int(strength)]), image[:, : -int(strength)]], 1)
    noise = np.random.default_rng(0).normal(0, strength, image.shape).astype(np.float32)
    return np.clip(image + noise, 0, 1)


def main() -> None:
    """Run the benchmark and print its table."""
    arguments = tyro.cli(Arguments)
    import torch

    from recon.perceptual import load_perceptual

    network = load_perceptual(arguments.network)
    views = true_views(load_assets(arguments.assets, arguments.split, arguments.limit))
    pictures = views[..., :3].astype(np.float32) / 255

    def features(images: list[np.ndarray]) -> list[torch.Tensor]:
        return network.features(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2))

    distances = {}
    for kind, strengths in STRENGTHS.items():
        rows = []
        for picture in pictures:
            changed = features([distorted(picture, kind, float(strength)) for strength in strengths])
            rows.append(network.distance(changed, features([picture])).numpy())
        distances[kind] = np.stack(rows)
        print(f"{kind:8s}" + "".join(f"{value:8.3f}" for value in distances[kind].mean(0)), flush=True)
    if arguments.plot:
        panels = [(f"distance by {kind}", STRENGTHS[kind], [values.mean(0)]) for kind, values in distances.items()]
        arguments.plot.write_text(curves(panels))
    rising = {kind: round(float((np.diff(values, axis=1) > 0).mean()), 3) for kind, values in distances.items()}
    largest = {kind: round(float(values[:, -1].mean()), 3) for kind, values in distances.items()}
    print(json.dumps({"rising": rising, "distance": largest, "assets": len(views)}))


if __name__ == "__main__":
    main()
