"""Measure what the autoencoder and the mask network keep of true views: `main`.

    python -m benchmarks.autoencoder --assets DIR [--split val] [--limit N] [--sheet FILE] [--mask-sheet FILE]

Prints a table, then one line of JSON: ``psnr`` (dB, over white) and ``iou`` (coverage) of encoding and
decoding again, ``mask_iou`` of the mask network on the same views' colours.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from benchmarks.assets import load_assets
from benchmarks.sheet import write_sheet
from benchmarks.turntable import masked_iou, psnr
from model.weights import POCKET_WEIGHTS

SHEET_ASSETS = 8


@dataclass(kw_only=True, slots=True)
class Arguments:
    """Measure the embedded autoencoder and mask network on true renders."""

    assets: Path
    """Folder with assets.jsonl and glb/."""
    split: str = "val"
    limit: int | None = None
    weights: Path = POCKET_WEIGHTS / "autoencoder"
    """The autoencoder's folder."""
    sheet: Path | None = None
    """Where to write true views over decoded ones, of the first eight assets."""
    mask_sheet: Path | None = None
    """Where to write views, their true coverage and the mask network's, of the first eight assets."""


def main() -> None:
    """Run the benchmark and print its table."""
    arguments = tyro.cli(Arguments)
    import torch

    from model.pocket.load import load_autoencoder
    from recon.masks import PocketMasker
    from recon.meshes.load import load_mesh, render_turntable

    autoencoder = load_autoencoder(arguments.weights)
    masker, rows, pictures = PocketMasker.load(), [], []
    for index, asset in enumerate(load_assets(arguments.assets, arguments.split, arguments.limit)):
        elevation = float(np.random.default_rng(index).uniform(0, np.pi / 4))
        truth = render_turntable(load_mesh(asset.path), elevation, 128)
        with torch.inference_mode():
            kept = autoencoder.decode_frames(autoencoder.encode_frames(torch.from_numpy(truth))).numpy()
        masks = masker(truth[..., :3])
        if index < SHEET_ASSETS:
            coverage = [np.repeat(mask[..., None], 3, -1) for mask in (truth[0, ..., 3], masks[0])]
            pictures.append(np.stack([truth[0, ..., :3], kept[0, ..., :3], *coverage]))
        rows.append({
            "psnr": np.mean([psnr(a[..., :3], b[..., :3]) for a, b in zip(kept, truth, strict=True)]),
            "iou": masked_iou(kept[..., 3], truth[..., 3]),
            "mask_iou": masked_iou(masks, truth[..., 3]),
        })  # fmt: skip
        print(f"{asset.caption[:32]:32s} " + "  ".join(f"{k} {v:6.3f}" for k, v in rows[-1].items()), flush=True)
    true, decoded, coverage, found = np.stack(pictures, 1)
    for path, kinds in ((arguments.sheet, (true, decoded)), (arguments.mask_sheet, (true, coverage, found))):
        if path:
            write_sheet(path, np.concatenate(kinds), columns=len(true))
    result = {key: round(float(np.mean([row[key] for row in rows])), 3) for key in rows[0]}
    print(json.dumps({**result, "assets": len(rows)}))


if __name__ == "__main__":
    main()
