"""Measure `im3d dataset`: `assets` from runs to shards and card, and `duplicates`, clusters of so many embeddings.

Figures for 100,000 assets that come from fewer are called extrapolated.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

TARGET = 100_000
FOLDERS = 32
"""Asset folders with files of their own; the assets take turns, and each reads and writes its files."""
GAUSSIANS, SIDE, VIEWS = 15_000, 128, 16
PARTS = ("assets", "duplicates")


def main(argv: list[str] | None = None) -> None:
    """Print a line for each part and a JSON line with all figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=int, default=1000, help="assets of the run")
    parser.add_argument("--vectors", type=int, default=TARGET, help="embeddings of 128 numbers")
    parser.add_argument("--limit", type=int, help="so many assets, and 1000 times as many embeddings")
    parser.add_argument("--only", choices=PARTS, action="append", help="parts to run; both by default")
    options = parser.parse_args(argv)
    counts = {"assets": options.limit or options.assets, "duplicates": (options.limit or 0) * 1000 or options.vectors}
    figures: dict[str, Any] = {}
    for name in options.only or PARTS:
        found = assets(counts[name]) if name == "assets" else duplicates(counts[name])
        print(f"{name}: {', '.join(f'{key} {value}' for key, value in found.items())}", flush=True)
        figures |= found
    print(json.dumps(figures))


def assets(count: int) -> dict[str, Any]:
    """A run of `count` assets, each with a PLY, a picture and views, to parquet, card and Croissant."""
    from jobs import dataset

    with tempfile.TemporaryDirectory() as folder:
        size = make_run(Path(folder, "run"), count)
        before, used = time.perf_counter(), _cpu_seconds()
        code = dataset.main(["--runs", f"{folder}/run", "--out", f"{folder}/set", "--drop", "none"])
        seconds, cpu = time.perf_counter() - before, _cpu_seconds() - used
        written = sum(path.stat().st_size for path in Path(folder, "set/data").iterdir())
    if code:
        raise SystemExit(f"im3d dataset ended with {code}")
    per = TARGET / count / 3600
    return {
        "assets": count,
        "mib_an_asset": round(size / 2**20, 2),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "bytes_written_of_read": round(written / (size * count), 3),
        "hours_for_100000_extrapolated": round(seconds * per, 2),
        "cpu_hours_for_100000_extrapolated": round(cpu * per, 2),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def make_run(root: Path, count: int) -> int:
    """Write the output folder of a run; returns the bytes of an asset's files that a data set takes."""
    from factory.ledger.commit_protocol import commit_block
    from factory.ledger.ledger import Ledger, file_entry
    from factory.stages.asset_table import assets_schema
    from factory.stages.chain import written_columns
    from factory.storage.store import open_store

    store, schema = open_store(str(root)), assets_schema(written_columns(), ["clip_text_renders_pocket"])
    random, entries = np.random.default_rng(0), []
    for number in range(FOLDERS):
        files = asset_files(random)
        for name, data in files.items():
            store.put(f"files/{number}/{name}", data)
        entries.append({name: file_entry(f"files/{number}/{name}", data) for name, data in files.items()})
    for start in range(0, count, 512):
        rows = []
        for k in range(start, min(count, start + 512)):
            files = entries[k % FOLDERS]
            row: dict[str, Any] = dict.fromkeys(schema.names)
            row |= {"prompt_id": f"asset-{k:06d}", "prompt": f"thing number {k}", "seed": k, "ply": files["asset.ply"]}
            row |= {"transforms": files["transforms.json"], "clip_text_renders_pocket": float(random.normal(25, 3))}
            row |= {"image": {"bytes": None, "path": files["image.png"]["path"]}, "image_license": "apache-2.0"}
            rows.append(row)
        commit_block(store, rows, schema)
    Ledger(store).publish()
    return sum(entry["size"] for entry in entries[0].values())


def asset_files(random: np.random.Generator) -> dict[str, bytes]:
    """Files of the size that the embedded models make."""
    import torch
    from PIL import Image

    from factory.stages.asset_ply import ply_bytes
    from recon.gaussians import init_ball

    def picture() -> bytes:
        coarse = Image.fromarray(random.integers(0, 255, (12, 12, 4), np.uint8), "RGBA")
        stream = io.BytesIO()
        coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(stream, "PNG")
        return stream.getvalue()

    generator = torch.Generator().manual_seed(int(random.integers(1 << 30)))
    frames = [{"file_path": f"views/{k:02d}.png", "transform_matrix": np.eye(4).tolist()} for k in range(VIEWS)]
    cameras = {"w": SIDE, "h": SIDE, "fl_x": 176.0, "fl_y": 176.0, "cx": 64.0, "cy": 64.0, "frames": frames}
    return {
        "asset.ply": ply_bytes(init_ball(GAUSSIANS, generator=generator)),
        "image.png": picture(),
        "transforms.json": json.dumps(cameras).encode(),
        **{f"views/{k:02d}.png": picture() for k in range(VIEWS)},
    }


def duplicates(count: int) -> dict[str, Any]:
    """Clusters of unit vectors around 200 themes, a fifth of them near another."""
    from factory.outputs.dataset.leaders import Leaders

    random = np.random.default_rng(0)
    themes = random.normal(size=(200, 128))
    vectors = themes[random.integers(0, 200, count)] + random.normal(size=(count, 128)) * 0.6
    copies = random.permutation(count)[: count // 5]
    vectors[copies] = vectors[random.integers(0, count, len(copies))] + random.normal(size=(len(copies), 128)) * 0.05
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    leaders, before, used = Leaders(0.95, 128), time.perf_counter(), _cpu_seconds()
    leaders.add(vectors)
    return {
        "vectors": count,
        "clusters": len(leaders),
        "duplicates_seconds": round(time.perf_counter() - before, 1),
        "duplicates_cpu_seconds": round(_cpu_seconds() - used, 1),
        "compared_of_all_pairs": round(leaders.compared / (count * count / 2), 4),
    }


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
