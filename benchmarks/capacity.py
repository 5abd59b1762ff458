"""Compare wider networks and sets of trained layers at the same computing time: `main`.

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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tyro

from benchmarks.assets import load_assets

if TYPE_CHECKING:
    from model.pocket.data import Batch, Turntable
    from model.training import Recipe, Setting, Training

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


def rendered(folder: Path, split: str, limit: int | None, size: int = 128) -> list[Turntable]:
    """One turntable of each asset at `size` pixels."""
    from model.pocket.data import Turntable
    from recon.meshes.load import load_mesh, render_turntable

    found = []
    for index, asset in enumerate(load_assets(folder, split, limit)):
        elevation = float(np.radians(np.random.default_rng(index).uniform(0, 45)))
        frames = render_turntable(load_mesh(asset.path), elevation, size)
        found.append(Turntable(frame=frames.__getitem__, count=len(frames), caption=asset.caption, elevation=elevation))
    return found


def batches(turntables: list[Turntable], target: str, size: int, seed: int) -> Iterator[Batch]:
    """Endless batches of random turntables, drawn as the target draws them."""
    from factory.training.finetune.targets import TARGETS
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
    from model.pocket.load import load_autoencoder
    from model.pocket.losses import ImageLoss
    from model.pocket.recipes import LATENT_CHANNELS
    from model.pocket.text import PocketTextEncoder, train_tokenizer
    from model.pocket.unet import PocketUNet
    from model.weights import POCKET_WEIGHTS

    unet = PocketUNet(latent_channels=LATENT_CHANNELS, latent_size=8, widths=widths)
    text = PocketTextEncoder(train_tokenizer(captions)).eval().requires_grad_(False)
    return ImageLoss(unet.train(), text, load_autoencoder(POCKET_WEIGHTS / "autoencoder"),
                     TrainConfig())  # fmt: skip


def started(recipe: Any, target: str, rate: float) -> Training:
    """A training at a constant rate, before its first step."""
    from factory.training.finetune.targets import TARGETS
    from model.config import Share, TrainConfig
    from model.training import Training

    size = TARGETS[target].drawing.batch
    config = TrainConfig(learning_rate=rate, ema_decay=0.99, warmup_steps=50, num_steps=1_000_000, decay_share=0.0)
    return Training(recipe, config, Share(total=size, micro=size, rounds=1))


def advance(training: Training, stream: Iterator[Batch], seconds: float) -> float:
    """Train for `seconds` of processor time; returns those used."""
    began = time.process_time()
    while (used := time.process_time() - began) < seconds:
        training.advance(stream)
    return used


def case(recipe: Any, target: str, kind: dict[str, list[Turntable]], rate: float, seconds: float) -> dict[str, Any]:
    """One case; the loss is looked at on the way, outside its time."""
    from factory.training.finetune.targets import TARGETS

    size = TARGETS[target].drawing.batch
    judged = batches(kind["val"], target, size, seed=1)
    fixed = [(number, next(judged)) for number in range(max(1, REPEATS * len(kind["val"]) // size))]
    training, stream = started(recipe, target, rate), batches(kind["train"], target, size, seed=2)
    used, losses = 0.0, []
    for look in LOOKS:
        used += advance(training, stream, look * seconds - used)
        answer = training.validate(fixed)
        losses.append(round(answer.get("diffusion", answer["loss"]), 4))
    parameters = sum(value.numel() for value in training.parameters.values())
    return {"parameters": parameters, "steps": training.step, "loss": losses}


def turntable_weights(folder: Path, size: int) -> None:
    """Copy the embedded weights to `folder`, `video` new: the image model with temporal layers for `size` pixels."""
    import torch

    from model.pocket import recipes
    from model.pocket.unet import PocketUNet
    from model.weights import PATCH, POCKET_WEIGHTS
    from recon.int8 import read_model

    shutil.copytree(POCKET_WEIGHTS, folder)
    torch.manual_seed(0)
    image = read_model(PocketUNet, folder / "image")
    sizes: dict[str, Any] = {key: value for key, value in image.config.items() if not key.startswith("_")}
    unet = PocketUNet(**{**sizes, "latent_size": size // PATCH, "temporal": True})
    unet.load_state_dict(image.state_dict(), strict=False)
    recipes.save_half(unet, folder / "video")


def turntable_recipe(make: Callable[[Setting], Recipe], folder: Path, size: int) -> Recipe:
    """`recipes.video` or `recipes.temporal` on the weights in `folder`, with one draw of noise levels for both."""
    from model.config import TrainConfig
    from model.training import Setting

    config = TrainConfig(from_weights=True)
    recipe = make(Setting(weights=folder, config=config, captions=[], size=size, scratch=folder))
    recipe.loss.skew = SKEW  # pyright: ignore
    return recipe


def layers(kind: dict[str, list[Turntable]], seconds: float, folder: Path) -> dict[str, dict[str, Any]]:
    """The turntable model from the image model, all layers and the temporal ones only, on the same views."""
    from model.pocket import recipes

    turntable_weights(folder, 128)
    found = {}
    for name, make in (("all layers", recipes.video), ("temporal layers", recipes.temporal)):
        recipe = turntable_recipe(make, folder, 128)
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
