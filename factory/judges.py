"""How the estimators and the judge are trained: elevation (A.1), masks, and the image-text model of the scores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from eval.small_clip import DEFAULT_CONFIG, build_clip, build_tokenizer, load_imagenet_trunk, save_clip
from model.config import Share
from model.parallel import World
from model.pocket.data import COLORS, Batch
from model.training import Recipe, Setting, generator_of
from recon.elevation import ElevationNetwork, elevation_loss, prepare
from recon.masks import MaskNetwork, PocketMasker, mask_loss

CLIP_VIEWS, CLIP_BATCH = 20480, 256
"""Pictures that the judge is trained on, and pictures a step."""


def elevation(setting: Setting) -> Recipe:
    """Regress the elevation from four frames (A.1)."""
    network = ElevationNetwork()
    return Recipe(loss=ElevationLoss(network), save=lambda folder: network.save(folder / "elevation"))


class ElevationLoss(nn.Module):
    """Squared error in radians, beside its root in degrees."""

    def __init__(self, network: ElevationNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """The loss of four frames a turntable."""
        frames = prepare(batch.frames.cpu().numpy(), self.network.config.size).to(batch.elevations.device)
        loss = elevation_loss(self.network, frames, batch.elevations)
        return loss, {"degrees": float(torch.rad2deg(loss.detach().sqrt()))}


def mask(setting: Setting) -> Recipe:
    """Learn coverage from colours over white."""
    network = MaskNetwork()
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
class Picks:
    """Which of the gathered pictures a step takes: int64 [B]."""

    rows: Tensor

    def to(self, device: torch.device) -> Picks:
        """The same; rows are looked up on the CPU."""
        return self


def clip(setting: Setting) -> Recipe:
    """Contrast pictures with captions (Radford et al. 2021); the judge shares nothing with the generators.

    The trunk is ImageNet's and stays as it is, so its features of `CLIP_VIEWS` augmented views are computed
    once; the projection and the text tower learn on them in batches of `CLIP_BATCH`.
    """
    model = build_clip(DEFAULT_CONFIG)
    load_imagenet_trunk(model)
    scratch = setting.scratch / "clip"
    tokenizer = build_tokenizer([*setting.captions, *(f"a {color} thing" for color in COLORS)], DEFAULT_CONFIG, scratch)
    loss = ClipLoss(model, tokenizer)

    def save(folder: Path) -> None:
        save_clip(folder / "clip", model, DEFAULT_CONFIG)
        (folder / "clip" / "tokenizer.json").write_bytes((scratch / "tokenizer.json").read_bytes())

    def feed(share: Share, world: World, step: int) -> Iterator[Picks]:
        while True:
            for part in range(share.rounds):
                generator = generator_of(setting.config.seed, 2, step, world.rank, part)
                yield Picks(rows=torch.randint(CLIP_VIEWS, (share.micro,), generator=generator))
            step += 1

    return Recipe(loss=loss, save=save, gather=loss.gather, feed=feed, batch=CLIP_BATCH)


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

    def forward(self, picks: Picks, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """The loss, and the share of pictures whose nearest text is right."""
        device = self.model.logit_scale.device
        texts = [self.texts[i] for i in picks.rows.tolist()]
        features = self.features[picks.rows].float().to(device)
        images = functional.normalize(self.model.visual.head(features), dim=-1)
        words = functional.normalize(self.model.encode_text(self.tokenizer(texts).to(device)), dim=-1)
        logits = self.model.logit_scale.exp().clamp(max=100) * images @ words.T
        same = torch.tensor([[a == b for b in texts] for a in texts], device=device).float()
        target = same / same.sum(1, keepdim=True)
        loss = (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2
        hit = same[torch.arange(len(texts)), logits.argmax(1)].mean().item()
        return loss, {f"r_at_1_of_{len(texts)}": hit}
