"""Train the estimators and the judge: `elevation` (A.1), `mask`, and `clip`, the image-text model of the scores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from eval.small_clip import (
    DEFAULT_CONFIG,
    Tokenizer,
    build_clip,
    build_tokenizer,
    load_clip,
    load_imagenet_trunk,
    save_clip,
)
from factory.stages.dino_elevation import DinoElevation, load_backbone, load_estimator
from model.config import Share
from model.parallel import World
from model.pocket.data import COLORS, Batch
from model.training import Recipe, Setting, generator_of
from recon.elevation import (
    ElevationEstimator,
    ElevationNetwork,
    elevation_loss,
    load_elevation,
    prepare,
)
from recon.masks import MaskNetwork, PocketMasker, mask_loss
from recon.user_error import UserError

CLIP_VIEWS = 20480
"""Pictures that the judge is trained on, and pictures a step."""


def elevation(setting: Setting) -> Recipe:
    """Regress the elevation from four frames (A.1)."""
    network = load_elevation(setting.weights / "elevation") if setting.config.from_weights else ElevationNetwork()
    network.train().requires_grad_(True)
    return Recipe(loss=ElevationLoss(network), save=lambda folder: network.save(folder / "elevation"))


def dino_elevation(setting: Setting) -> Recipe:
    """The same by the paper's network: features of the `Dinov2Model` in the folder `dino`, frozen; the MLP learns."""
    if setting.config.from_weights:
        network = load_estimator(setting.weights / "elevation")
        if not isinstance(network, DinoElevation):
            raise UserError("the folder elevation holds a pocket estimator; leave out --train.from-weights")
        network.mlp.requires_grad_(True)
    else:
        network = DinoElevation(load_backbone(setting.weights / "dino"))
    network.train()
    return Recipe(loss=ElevationLoss(network), save=lambda folder: network.save(folder / "elevation"))


class ElevationLoss(nn.Module):
    """Squared error in radians, beside its root in degrees."""

    def __init__(self, network: ElevationEstimator) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """The loss of four frames a turntable."""
        frames = prepare(batch.frames.cpu().numpy(), self.network.config.size).to(batch.elevations.device)
        loss = elevation_loss(self.network, frames, batch.elevations)
        return loss, {"degrees": float(torch.rad2deg(loss.detach().sqrt()))}


def mask(setting: Setting) -> Recipe:
    """Learn coverage from colours over white."""
    own = setting.config.from_weights
    network = PocketMasker.load(setting.weights / "mask").network if own else MaskNetwork()
    network.train().requires_grad_(True)
    return Recipe(loss=MaskLoss(network), save=lambda folder: PocketMasker(network).save(folder / "mask"))


class MaskLoss(nn.Module):
    """Cross-entropy and Dice, on slightly noisy colours."""

    def __init__(self, network: MaskNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """The loss of one view a turntable."""
        frames = batch.frames.flatten(0, 1).permute(0, 3, 1, 2).float() / 255
        noise = torch.randn(frames[:, :3].shape, generator=generator).to(frames.device)
        return mask_loss(self.network, (frames[:, :3] + 0.02 * noise).clamp(0, 1), frames[:, 3]), {}


@dataclass(kw_only=True, slots=True)
class ClipBatch:
    """Which of the gathered pictures a step takes: int64 [B]."""

    rows: Tensor

    def to(self, device: torch.device) -> ClipBatch:
        """The same; rows are looked up on the CPU."""
        return self


def clip(setting: Setting) -> Recipe:
    """Contrast pictures with captions (Radford et al. 2021); the judge shares nothing with the generators.

    The trunk is ImageNet's and stays as it is, so its features of `CLIP_VIEWS` augmented views are computed
    once; the projection and the text tower learn on them in batches.
    """
    model, tokenizer, config, words = _judge(setting)
    loss = ClipLoss(model, tokenizer)

    def save(folder: Path) -> None:
        save_clip(folder / "clip", model, config)
        (folder / "clip" / "tokenizer.json").write_bytes(words)

    def feed(share: Share, world: World, step: int) -> Iterator[ClipBatch]:
        while True:
            for part in range(share.rounds):
                generator = generator_of(setting.config.seed, 2, step, world.rank, part)
                yield ClipBatch(rows=torch.randint(CLIP_VIEWS, (share.micro,), generator=generator))
            step += 1

    return Recipe(loss=loss, save=save, gather=loss.gather, feed=feed)


def _judge(setting: Setting) -> tuple[Any, Tokenizer, dict[str, Any], bytes]:
    """The network to train, its tokenizer, its config and its tokenizer's file: a new one, or the weights' own."""
    if setting.config.from_weights:
        folder = setting.weights / "clip"
        model, tokenizer, config = load_clip(folder)
        model.train().requires_grad_(True)
        model.visual.trunk.requires_grad_(False).eval()
    else:
        folder, config = setting.scratch / "clip", DEFAULT_CONFIG
        model = build_clip(config)
        load_imagenet_trunk(model)
        tokenizer = build_tokenizer([*setting.captions, *(f"a {color} thing" for color in COLORS)], config, folder)
    return model, tokenizer, config, (folder / "tokenizer.json").read_bytes()


class ClipLoss(nn.Module):
    """The symmetric contrastive loss; pictures of the same caption count as each other's match."""

    def __init__(self, model, tokenizer) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        self.texts: list[str] = []
        self.features = torch.empty(0)

    def gather(self, batches: Iterator[Batch]) -> None:
        """Keep captions, and pooled trunk features float16 [CLIP_VIEWS,D], of augmented views from all sides."""
        size, rows, texts = DEFAULT_CONFIG["preprocess_cfg"]["size"], [], []
        with torch.no_grad():
            while len(texts) < CLIP_VIEWS:
                batch = next(batches)
                rgb = batch.frames.flatten(0, 1)[..., :3].permute(0, 3, 1, 2).float() / 127.5 - 1
                rows.append(self.model.visual.trunk(functional.interpolate(rgb, size=(size, size), mode="area")).half())
                texts += batch.captions
        self.texts, self.features = texts, torch.cat(rows)

    def forward(self, batch: ClipBatch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """The loss, and the share of pictures whose nearest text is right."""
        device = self.model.logit_scale.device
        texts = [self.texts[i] for i in batch.rows.tolist()]
        features = self.features[batch.rows].float().to(device)
        images = functional.normalize(self.model.visual.head(features), dim=-1)
        words = functional.normalize(self.model.encode_text(self.tokenizer(texts).to(device)), dim=-1)
        logits = self.model.logit_scale.exp().clamp(max=100) * images @ words.T
        same = torch.tensor([[a == b for b in texts] for a in texts], device=device).float()
        target = same / same.sum(1, keepdim=True)
        loss = (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2
        hit = same[torch.arange(len(texts)), logits.argmax(1)].mean().item()
        return loss, {f"r_at_1_of_{len(texts)}": hit}
