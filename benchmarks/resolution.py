"""Compare resolutions of the turntable model at the same computing time: `main`.

    python -m benchmarks.resolution --assets DIR [--seconds S] [--limit N] [--sizes 64 128 256]

At every size, the embedded image model gets new temporal layers and trains all layers on renders of that size, on one
thread, until it has used S seconds of processor time, reading included (so that other programs on the machine cost
nothing). Then it makes turntables of the validation assets from their true first frames. They are brought to 128 pixels
and compared with the true renders there, so that sizes compare; beside them is what the size and its autoencoder alone
would lose: the true frames of that size, encoded and decoded. Prints a table, then one line of JSON.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tyro

from benchmarks.capacity import advance, batches, rendered, started, turntable_recipe, turntable_weights
from benchmarks.turntable import measure

if TYPE_CHECKING:
    from model.pocket.data import Turntable
    from model.pocket.video import PocketVideoModel

JUDGED = 128
"""Side of the frames that are compared, in pixels."""
LOOKS = (0.5, 1.0)
COLUMNS = ("psnr", "iou", "rotation_hit_rate")


@dataclass(kw_only=True, slots=True)
class Arguments:
    """Compare frame sizes at equal processor time."""

    assets: Path
    """Folder with assets.jsonl and glb/."""
    limit: int | None = None
    """Assets of each split."""
    seconds: float = 600.0
    """Processor seconds of training for each size."""
    sizes: tuple[int, ...] = (64, 128, 256)
    """Sides of the frames in pixels, multiples of 32."""


def views(turntable: Turntable) -> np.ndarray:
    """All frames, uint8 [16,S,S,4]."""
    return np.stack([turntable.frame(k) for k in range(turntable.count)])


def resized(frames: np.ndarray, size: int) -> np.ndarray:
    """Frames uint8 [K,S,S,4] at `size` pixels, every channel by itself."""
    import torch

    planes = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    planes = torch.nn.functional.interpolate(planes, size=(size, size), mode="bicubic", antialias=True)
    return planes.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()


def model_of(recipe: Any) -> PocketVideoModel:
    """The turntable model that a recipe trains, sampled as the embedded one."""
    from factory.config.settings import preset
    from model.pocket.video import PocketVideoModel

    loss = recipe.loss
    return PocketVideoModel(loss.unet, loss.text, loss.autoencoder, preset("pocket").video, "", "", {})


def judge(model: PocketVideoModel, own: list[Turntable], truth: list[Turntable]) -> dict[str, float]:
    """Means over the assets of `turntable.measure` at `JUDGED` pixels, and of what size and autoencoder alone leave."""
    import torch

    rows = []
    for index, (turntable, true) in enumerate(zip(own, truth, strict=True)):
        frames, wanted = views(turntable), views(true)
        made = model.generate(frames[:1], [turntable.caption], [index])[0]
        with torch.inference_mode():
            kept = model.autoencoder.decode_frames(model.autoencoder.encode_frames(torch.from_numpy(frames))).numpy()
        found, limit = measure(resized(made, JUDGED), wanted), measure(resized(kept, JUDGED), wanted)
        rows.append([found[name] for name in COLUMNS] + [limit["psnr"], limit["iou"]])
    names = (*COLUMNS, "limit_psnr", "limit_iou")
    return dict(zip(names, np.mean(rows, 0).round(4).tolist(), strict=True))


def train_at(size: int, arguments: Arguments, truth: list[Turntable], folder: Path) -> dict[str, Any]:
    """Train at one size; the figures after half and all of the time."""
    from model.pocket import recipes

    kind = {split: rendered(arguments.assets, split, arguments.limit, size) for split in ("train", "val")}
    turntable_weights(folder, size)
    recipe = turntable_recipe(recipes.video, folder, size)
    training, stream = started(recipe, "video", 7e-4), batches(kind["train"], "video", 8, seed=2)
    used, looks = 0.0, []
    for look in LOOKS:
        used += advance(training, stream, look * arguments.seconds - used)
        with training.averaged():
            judged = judge(model_of(recipe), kind["val"], truth)
        looks.append({"seconds": look * arguments.seconds, "steps": training.step, **judged})
    return {"parameters": sum(p.numel() for p in training.parameters.values()), "looks": looks}


def line(look: dict[str, float]) -> str:
    """A look's columns."""
    return (f"{look['steps']:6d} {look['seconds']:7.0f} {look['psnr']:6.2f} {look['iou']:6.3f} "
            f"{look['rotation_hit_rate']:9.3f} {look['limit_psnr']:13.2f} {look['limit_iou']:6.3f}")  # fmt: skip


def main() -> None:
    """Run the benchmark and print its table."""
    arguments = tyro.cli(Arguments)
    import torch

    torch.set_num_threads(1)
    truth = rendered(arguments.assets, "val", arguments.limit, JUDGED)
    found = {}
    print("   px parameters  steps seconds   PSNR    IoU  rotation   limit: PSNR    IoU")
    for size in arguments.sizes:
        with tempfile.TemporaryDirectory(prefix="im3d-bench-") as scratch:
            found[size] = row = train_at(size, arguments, truth, Path(scratch, "weights"))
        for look in row["looks"]:
            print(f"{size:5d} {row['parameters'] / 1e6:8.2f} M {line(look)}", flush=True)
    print(json.dumps({"seconds": arguments.seconds, "assets": len(truth), "sizes": found}))


if __name__ == "__main__":
    main()
