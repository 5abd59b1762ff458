"""What more width, and what training of which layers, buys for the same computing time.

    python -m benchmarks.capacity --assets DIR [--seconds S] [--limit N]

Trains each case on one thread until it has used S seconds of processor time (so that other programs on the machine cost
nothing): the text-to-image model at three widths, from nothing; then the turntable model from the embedded image model
with new temporal layers, once all layers, once the temporal ones only (paper 3.1), on the same views and noise levels.
Judged by the diffusion loss of the averaged weights on turntables of the validation assets, with one noise for all.
Prints a table, then one line of JSON: for each case its parameters, its steps and its ``loss`` after an eighth, a
quarter, half and all of the time.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tyro

from benchmarks.assets import load_assets

if TYPE_CHECKING:
    from model.pocket.data import Batch, Turntable
    from model.training import Training

WIDTHS = ((64, 128), (96, 192), (144, 288))
LOOKS = (0.125, 0.25, 0.5, 1.0)
SKEW = 2.0
"""Of the noise levels that turntable models are trained and judged on, see `noised`."""
REPEATS = 4
"""Times that every validation turntable is judged, each with other noise."""


@dataclass(kw_only=True, slots=True)
class Arguments:
    """Compare sizes and trained layers at equal processor time."""

    assets: Path
    """Folder with assets.jsonl and glb/."""
    limit: int | None = None
    """Assets of each split."""
    seconds: float = 60.0
    """Processor seconds of training for each case."""


def rendered(folder: Path, split: str, limit: int | None) -> list[Turntable]:
    """One turntable of each asset at 128 px."""
    from factory.meshes import load_mesh, render_turntable
    from model.pocket.data import Turntable

    found = []
    for index, asset in enumerate(load_assets(folder, split, limit)):
        elevation = float(np.radians(np.random.default_rng(index).uniform(0, 45)))
        frames = render_turntable(load_mesh(asset.path), elevation, 128)
        found.append(Turntable(frame=frames.__getitem__, count=len(frames), caption=asset.caption, elevation=elevation))
    return found


def batches(turntables: list[Turntable], target: str, size: int, seed: int) -> Iterator[Batch]:
    """Endless batches of random turntables, drawn as the target draws them."""
    from factory.targets import TARGETS
    from model.pocket.data import draw, stack
    from model.training import generator_of

    random, number = np.random.default_rng(seed), 0
    while True:
        chosen = random.integers(len(turntables), size=size)
        yield stack([
            draw(turntables[k], TARGETS[target].drawing, generator_of(seed, number, place))
            for place, k in enumerate(chosen)
        ])  # fmt: skip
        number += 1


def image_at(widths: tuple[int, int], captions: list[str]) -> Any:
    """The loss of a new text-to-image model."""
    from model.config import TrainConfig
    from model.pocket.autoencoder import PocketAutoencoder
    from model.pocket.losses import ImageLoss
    from model.pocket.recipes import LATENT_CHANNELS, load_frozen
    from model.pocket.text import PocketTextEncoder, train_tokenizer
    from model.pocket.unet import PocketUNet
    from model.weights import POCKET_WEIGHTS

    unet = PocketUNet(latent_channels=LATENT_CHANNELS, latent_size=8, widths=widths)
    text = PocketTextEncoder(train_tokenizer(captions))
    return ImageLoss(unet.train(), text.train(), load_frozen(PocketAutoencoder, POCKET_WEIGHTS / "autoencoder"),
                     TrainConfig())  # fmt: skip


def train(
    training: Training, stream: Iterator[Batch], judged: list[tuple[int, Batch]], seconds: float
) -> dict[str, Any]:
    """Train until `seconds` of processor time are used; the loss is looked at on the way, outside that time."""
    used, losses = 0.0, {}
    for look in LOOKS:
        while used < look * seconds:
            began = time.process_time()
            training.advance(stream)
            used += time.process_time() - began
        told = training.validate(judged)
        losses[look] = round(told.get("diffusion", told["loss"]), 4)
    parameters = sum(value.numel() for value in training.parameters.values())
    return {"parameters": parameters, "steps": training.step, "loss": list(losses.values())}


def case(recipe: Any, target: str, kind: dict[str, list[Turntable]], rate: float, seconds: float) -> dict[str, Any]:
    """One case, trained at a constant rate."""
    from factory.targets import TARGETS
    from model.config import Share, TrainConfig
    from model.training import Training

    size = TARGETS[target].drawing.batch
    judged = batches(kind["val"], target, size, seed=1)
    fixed = [(number, next(judged)) for number in range(max(1, REPEATS * len(kind["val"]) // size))]
    config = TrainConfig(learning_rate=rate, ema_decay=0.99, warmup_steps=50, num_steps=1_000_000, decay_share=0.0)
    training = Training(recipe, config, Share(total=size, micro=size, rounds=1))
    return train(training, batches(kind["train"], target, size, seed=2), fixed, seconds)


def layers(kind: dict[str, list[Turntable]], seconds: float, folder: Path) -> dict[str, dict[str, Any]]:
    """The turntable model from the image model, all layers and the temporal ones only, on the same views."""
    import torch

    from model.config import TrainConfig
    from model.pocket import recipes
    from model.pocket.unet import PocketUNet
    from model.training import Setting
    from model.weights import POCKET_WEIGHTS

    shutil.copytree(POCKET_WEIGHTS, folder)
    torch.manual_seed(0)
    unet = PocketUNet(latent_channels=recipes.LATENT_CHANNELS, latent_size=8, widths=recipes.WIDTHS, temporal=True)
    unet.load_state_dict(PocketUNet.from_pretrained(folder / "image").float().state_dict(), strict=False)
    recipes.save_half(unet, folder / "video")
    found = {}
    for name, make in (("all layers", recipes.video), ("temporal layers", recipes.temporal)):
        config = TrainConfig(from_weights=True)
        recipe = make(Setting(weights=folder, config=config, captions=[], size=128, scratch=folder))
        recipe.loss.skew = SKEW  # pyright: ignore
        found[name] = case(recipe, "video", kind, 7e-4, seconds)
        print(line(name, found[name]), flush=True)
    return found


def line(name: str, row: dict[str, Any]) -> str:
    """A row of the table."""
    losses = "  ".join(f"{loss:8.4f}" for loss in row["loss"])
    return f"{name:16s} {row['parameters'] / 1e6:7.2f} M {row['steps']:7d} steps  {losses}"


def main() -> None:
    """Run the benchmark and print its table."""
    arguments = tyro.cli(Arguments)
    import torch

    from model.training import Recipe

    torch.set_num_threads(1)
    kind = {split: rendered(arguments.assets, split, arguments.limit) for split in ("train", "val")}
    captions = sorted({turntable.caption for turntable in kind["train"]})
    print(f"validation loss after {', '.join(f'{look * arguments.seconds:.0f}' for look in LOOKS)} seconds")
    found = {}
    for widths in WIDTHS:
        torch.manual_seed(0)
        recipe = Recipe(loss=image_at(widths, captions), save=lambda folder: None)
        name = f"image {widths[0]}, {widths[1]}"
        found[name] = case(recipe, "image", kind, 1e-3, arguments.seconds)
        print(line(name, found[name]), flush=True)
    with tempfile.TemporaryDirectory(prefix="im3d-bench-") as scratch:
        found |= layers(kind, arguments.seconds, Path(scratch, "weights"))
    print(json.dumps({"seconds": arguments.seconds, "cases": found}))


if __name__ == "__main__":
    main()
