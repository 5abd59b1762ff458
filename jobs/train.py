"""Train an embedded model on turntables: `im3d train --target image --shards DIR --weights DIR`.

Targets, in the order in which they build on each other: autoencoder, image, video, temporal; and on
their own: elevation, mask, clip. A run that was cut goes on from its last checkpoint.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from jobs.settings import guarded
from model.config import TrainConfig

if TYPE_CHECKING:
    import torch
    from torch import nn

    from model.pocket.data import TurntableSet

CLIP_VIEWS, CLIP_BATCH = 20480, 256
"""Pictures that the judge is trained on, and pictures a step."""
Target = Literal["autoencoder", "image", "video", "temporal", "elevation", "mask", "clip"]


@dataclass(kw_only=True, slots=True)
class Train:
    """Train one of the embedded models on rendered turntables."""

    target: Target
    """Which model."""
    shards: Path
    """Folder of turntable shards, as `im3d render` writes them."""
    weights: Path
    """Folder of weight folders; what the target builds on is read from it, the result is written to it."""
    runs: Path = Path("runs/train")
    """Checkpoints and logs, one folder a target."""
    split: str | None = "train"
    """Rows of this split only; `None` takes all."""
    threads: int = 1
    """CPU threads."""
    train: TrainConfig = field(default_factory=TrainConfig)


def train_elevation(turntables: TurntableSet, config: TrainConfig, weights: Path, runs: Path) -> None:
    """Regress the elevation from four frames (A.1)."""
    import torch

    from model.pocket.autoencoder import to_frames
    from model.pocket.losses import draw_batch
    from model.training import train
    from recon.elevation import ElevationNetwork, elevation_loss, prepare

    torch.manual_seed(config.seed)
    network = ElevationNetwork()

    def quarters(generator: torch.Generator) -> torch.Tensor:
        return torch.arange(0, 16, 4) + torch.randint(16, (1,), generator=generator)

    def loss_fn(step: int, generator: torch.Generator):
        samples = draw_batch(turntables, 16, generator, lambda: quarters(generator))
        frames = prepare(to_frames(torch.stack([s.video for s in samples])).numpy(), network.config.size)
        loss = elevation_loss(network, frames, torch.tensor([s.elevation for s in samples]))
        return loss, {"degrees": float(torch.rad2deg(loss.detach().sqrt()))}

    train(network, loss_fn, config, runs)
    network.save(weights / "elevation")


def train_mask(turntables: TurntableSet, config: TrainConfig, weights: Path, runs: Path) -> None:
    """Learn coverage from colours over white."""
    import torch

    from model.pocket.losses import draw_batch
    from model.training import train
    from recon.masks import MaskNetwork, PocketMasker, mask_loss

    torch.manual_seed(config.seed)
    network = MaskNetwork()

    def loss_fn(step: int, generator: torch.Generator):
        samples = draw_batch(turntables, 16, generator, lambda: torch.randint(16, (1,), generator=generator))
        x = torch.cat([s.video for s in samples]) / 2 + 0.5
        rgb = (x[:, :3] + 1 - x[:, 3:]).clamp(0, 1)
        rgb = (rgb + 0.02 * torch.randn(rgb.shape, generator=generator)).clamp(0, 1)
        return mask_loss(network, rgb, x[:, 3]), {}

    train(network, loss_fn, config, runs)
    PocketMasker(network).save(weights / "mask")


def train_clip(turntables: TurntableSet, config: TrainConfig, weights: Path, runs: Path) -> None:
    """Contrast pictures with captions (Radford et al. 2021); the judge shares nothing with the generators.

    The trunk is ImageNet's and stays as it is, so its features of `CLIP_VIEWS` augmented views are computed
    once; the projection and the text tower learn on them in batches of `CLIP_BATCH`.
    """
    import torch
    from torch.nn import functional

    from eval.small_clip import DEFAULT_CONFIG, build_clip, build_tokenizer, load_imagenet_trunk, save_clip
    from model.pocket.data import COLORS
    from model.training import train

    torch.manual_seed(config.seed)
    model = build_clip(DEFAULT_CONFIG)
    load_imagenet_trunk(model)
    captions = [*turntables.captions, *(f"a {color} thing" for color in COLORS)]
    tokenizer = build_tokenizer(captions, DEFAULT_CONFIG, weights / "clip")
    features, texts = clip_features(model.visual.trunk, turntables, config.seed)
    tokens = tokenizer(texts)

    def loss_fn(step: int, generator: torch.Generator):
        picks = torch.randint(len(texts), (CLIP_BATCH,), generator=generator)
        images = functional.normalize(model.visual.head(features[picks].float()), dim=-1)
        words = functional.normalize(model.encode_text(tokens[picks]), dim=-1)
        logits = model.logit_scale.exp().clamp(max=100) * images @ words.T
        names = [texts[i] for i in picks.tolist()]
        same = torch.tensor([[a == b for b in names] for a in names]).float()
        target = same / same.sum(1, keepdim=True)
        loss = (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2
        hit = same[torch.arange(len(names)), logits.argmax(1)].mean().item()
        return loss, {f"r_at_1_of_{CLIP_BATCH}": hit}

    train(model, loss_fn, config, runs)
    save_clip(weights / "clip", model, DEFAULT_CONFIG)


def clip_features(trunk: nn.Module, turntables: TurntableSet, seed: int) -> tuple[torch.Tensor, list[str]]:
    """Pooled trunk features float16 [CLIP_VIEWS,D] of augmented views from all sides, and their captions."""
    import torch
    from torch.nn import functional

    from eval.small_clip import DEFAULT_CONFIG
    from model.pocket.losses import draw_batch

    size, generator = DEFAULT_CONFIG["preprocess_cfg"]["size"], torch.Generator().manual_seed(seed)
    rows, texts = [], []
    with torch.inference_mode():
        while len(texts) < CLIP_VIEWS:
            samples = draw_batch(turntables, 64, generator, lambda: torch.randint(16, (1,), generator=generator))
            x = torch.cat([sample.video for sample in samples]) / 2 + 0.5
            rgb = (x[:, :3] + 1 - x[:, 3:]).clamp(0, 1)
            rows.append(trunk(functional.interpolate(rgb, size=(size, size), mode="area") * 2 - 1).half())
            texts += [sample.caption for sample in samples]
    return torch.cat(rows).clone(), texts


def recipes() -> dict[str, Callable[..., None]]:
    """Every target's trainer."""
    from model.pocket import recipes as generators

    return {
        "autoencoder": generators.train_autoencoder,
        "image": generators.train_image,
        "video": generators.train_video,
        "temporal": generators.train_temporal,
        "elevation": train_elevation,
        "mask": train_mask,
        "clip": train_clip,
    }


def run(arguments: Train) -> int:
    """Load the shards and train the target; returns the exit code."""
    import torch

    from factory.shards import load_turntables

    torch.set_num_threads(arguments.threads)
    turntables = load_turntables(arguments.shards, arguments.split)
    recipes()[arguments.target](turntables, arguments.train, arguments.weights, arguments.runs / arguments.target)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, train; returns the exit code."""
    return guarded(lambda: run(tyro.cli(Train, args=argv, prog="im3d train")))


if __name__ == "__main__":
    sys.exit(main())
