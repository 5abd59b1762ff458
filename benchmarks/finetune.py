"""Measure what Ray Train costs a training, and whether memory stays flat: `measure`.

    python -m benchmarks.finetune [--limit N] [--steps S]

Trains the pocket `temporal` target from shards that it renders itself (`--limit` boxes), in float32, one thread a
worker: the plain loop, then Ray Train with one worker and with two. Prints a table, then one line of JSON:
``ray_over_plain`` (median step, without waiting for data), ``data_wait_share`` (of all steps but the first tenth),
``memory_growth_mb`` (of a worker, last quarter of the run over the one before), and the same with ``_2`` for two
workers.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro


@dataclass(kw_only=True, slots=True)
class Arguments:
    """Compare Ray Train with the plain loop."""

    limit: int = 16
    """Assets to train on."""
    steps: int = 300
    size: int = 128
    """Side of the frames in pixels, a multiple of 16."""


def write_shards(folder: Path, count: int, size: int) -> None:
    """Turntables of coloured boxes, two an asset, as `im3d render` writes them."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import trimesh
    from trimesh.visual import ColorVisuals

    from factory.stages.asset_files import png
    from recon.meshes.load import load_mesh, render_turntable

    (folder / "renders").mkdir(parents=True)
    for number in range(count):
        random = np.random.default_rng(number)
        box = trimesh.creation.box(random.uniform(0.3, 1, 3))
        colors = np.tile([*random.integers(0, 256, 3), 255], (len(box.vertices), 1)).astype(np.uint8)
        box.visual = ColorVisuals(box, vertex_colors=colors)
        path = folder / "box.glb"
        box.export(path)
        mesh, rows = load_mesh(path), []
        for elevation in random.uniform(0, 0.7, 2):
            frames = [{"bytes": png(frame), "path": ""} for frame in render_turntable(mesh, elevation, size)]
            known = {"asset_id": f"box-{number}", "caption": "a box", "split": "train", "size": size}
            rows.append(known | {"elevation": float(elevation), "frames": frames})
        pq.write_table(pa.Table.from_pylist(rows), folder / "renders" / f"part-{number:06d}.parquet")


def write_weights(folder: Path, size: int) -> None:
    """The embedded weights, their turntable model made anew for another size of frames."""
    import shutil

    from model.pocket.recipes import LATENT_CHANNELS, WIDTHS, save_half
    from model.pocket.unet import PocketUNet
    from model.weights import POCKET_WEIGHTS

    shutil.copytree(POCKET_WEIGHTS, folder)
    if size != 128:
        unet = PocketUNet(latent_channels=LATENT_CHANNELS, latent_size=size // 16, widths=WIDTHS, temporal=True)
        save_half(unet, folder / "video")


def measure(folder: Path, name: str, steps: int, workers: int, train: Callable) -> dict[str, float]:
    """Train a run and read its log."""
    from factory.storage.store import StorageConfig
    from factory.training.finetune.prepare import prepare
    from factory.training.finetune.recorder import read_log
    from factory.training.finetune.settings import WorkersConfig
    from model.config import TrainConfig

    config = TrainConfig(
        num_steps=steps, save_every=steps, log_every=10, precision="float32", total_batch=2 * workers,
        validation_turntables=0,
    )  # fmt: skip
    places = (str(folder / "shards"), str(folder / "weights"), str(folder / name))
    run = prepare("temporal", *places, "train", config, WorkersConfig(workers=workers), StorageConfig())
    train(run)
    rows = read_log(run.store)[steps // 10 :]
    seconds, waited = (np.array([row[key] for row in rows]) for key in ("seconds", "waited"))
    memory = np.array([row["memory_mb"] for row in rows])
    quarter = max(1, len(memory) // 4)
    return {
        "step_seconds": float(np.median(seconds - waited)),
        "data_wait_share": float(waited.sum() / seconds.sum()),
        "memory_growth_mb": float(np.median(memory[-quarter:]) - np.median(memory[-2 * quarter : -quarter])),
    }


def plain(run) -> None:
    """Without Ray."""
    import torch

    from factory.training.finetune.worker import train_worker
    from factory.training.shards.draw_order import plain_batches
    from model.parallel import World

    torch.set_num_threads(1)
    train_worker(run, World(), lambda start, share: plain_batches(run.reader(), share.micro, start))


def main() -> None:
    """Run the benchmark and print its table."""
    arguments = tyro.cli(Arguments)
    from factory.training.finetune.driver import fit

    with tempfile.TemporaryDirectory(prefix="im3d-bench-") as scratch:
        folder = Path(scratch)
        write_shards(folder / "shards", max(1, arguments.limit), arguments.size)
        write_weights(folder / "weights", arguments.size)
        found = {
            "plain": measure(folder, "plain", arguments.steps, 1, plain),
            "ray": measure(folder, "ray", arguments.steps, 1, fit),
            "ray, 2 workers": measure(folder, "ray-2", arguments.steps, 2, fit),
        }
    for name, row in found.items():
        print(f"{name:16s} " + "  ".join(f"{key} {value:8.3f}" for key, value in row.items()))
    result = {}
    for suffix, name in (("", "ray"), ("_2", "ray, 2 workers")):
        result[f"ray_over_plain{suffix}"] = found[name]["step_seconds"] / found["plain"]["step_seconds"]
        result |= {f"{key}{suffix}": found[name][key] for key in ("data_wait_share", "memory_growth_mb")}
    print(json.dumps({key: round(value, 3) for key, value in result.items()} | {"steps": arguments.steps}))


if __name__ == "__main__":
    main()
