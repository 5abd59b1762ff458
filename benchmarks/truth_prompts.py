"""Write prompts whose right answer is known, from a true view of each asset: `main`.

    python -m benchmarks.truth_prompts --assets DIR --limit 6 --out runs/truth-prompts
    im3d generate --prompts runs/truth-prompts/prompts.jsonl --out runs/truth
    im3d evaluate --run runs/truth --truth DIR

Assets are taken at uniform steps through the split; the last line of output says where the table lies.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.assets import load_assets


@dataclass(kw_only=True, slots=True)
class Arguments:
    """Write prompts.jsonl and its pictures."""

    assets: Path
    """Folder with assets.jsonl and glb/."""
    split: str = "val"
    limit: int = 6
    """Assets, >= 1."""
    elevation_degrees: float = 20.0
    """Of the camera."""
    size: int = 128
    """Pixels a side."""
    out: Path = Path("runs/truth-prompts")


def main(arguments: Arguments) -> Path:
    """Render and write; returns the table's path."""
    from PIL import Image

    from factory.evaluation.truth import true_turntable
    from recon.meshes.load import load_mesh

    rows, assets = [], load_assets(arguments.assets, arguments.split)
    count = min(arguments.limit, len(assets))
    arguments.out.mkdir(parents=True, exist_ok=True)
    for asset in (assets[place * len(assets) // count] for place in range(count)):
        view = true_turntable(load_mesh(asset.path), math.radians(arguments.elevation_degrees), arguments.size, 1)[0]
        name = f"{asset.asset_id}.png"
        Image.fromarray(view).save(arguments.out / name)
        rows.append({"prompt_id": asset.asset_id, "prompt": asset.caption, "image": name, "seed": 1})
    table = arguments.out / "prompts.jsonl"
    table.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    print(f"{len(rows)} prompts: {table}")
    return table


if __name__ == "__main__":
    main(tyro.cli(Arguments, description=__doc__))
