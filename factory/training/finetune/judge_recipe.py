"""Train the judge, a small image-text model of open_clip's form: the target `clip`.

Pictures learn to meet what a sentence encoder makes of their captions (Radford et al. 2021, with the text side of
Zhai et al. 2022 locked), and a small text tower learns to say what the sentence encoder says. It shares nothing
with the generators.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from eval.small_clip import (
    DEFAULT_CONFIG,
    Tokenizer,
    build_clip,
    build_tokenizer,
    load_clip,
    load_imagenet_trunk,
    save_clip,
)
from model.config import Share, TrainConfig
from model.parallel import World
from model.pocket.data import Batch
from model.pocket.sentence_teacher import Phrases, SentenceTeacher
from model.training import Recipe, Setting, autocast, generator_of

NUM_VIEWS, BATCH = 40960, 256
"""Views whose features are gathered at most, for steps to draw from, and views of a step where settings name none."""
NUM_NEGATIVES = 256
"""Phrases beside a batch's own captions that its pictures are told from."""
TEMPERATURE = 0.06
"""Of the teacher's similarities, where phrases that it thinks alike share a picture's target."""
SHARED = 0.5
"""Share of the target that goes by those similarities; the rest goes to equal captions."""


@dataclass(kw_only=True, slots=True)
class JudgeBatch:
    """Which gathered views and which phrases a step takes: int64 [B] and [NUM_NEGATIVES]."""

    views: Tensor
    phrases: Tensor

    def to(self, device: torch.device) -> JudgeBatch:
        """The same; rows are looked up on the CPU."""
        return self


def clip(setting: Setting) -> Recipe:
    """ImageNet's trunk as it is; a projection of its features and a text tower, both into the teacher's space."""
    model, tokenizer, config, words = _judge(setting)
    loss = JudgeLoss(model, tokenizer, config["preprocess_cfg"]["size"], setting.config)

    def gather(batches: Iterator[Batch]) -> None:
        loss.gather(batches, list(setting.captions), SentenceTeacher())

    def save(folder: Path) -> None:
        save_clip(folder / "clip", model, config)
        (folder / "clip" / "tokenizer.json").write_bytes(words)

    return Recipe(loss=loss, save=save, gather=gather, feed=loss.feed)


def _judge(setting: Setting) -> tuple[Any, Tokenizer, dict[str, Any], bytes]:
    """The network to train, its tokenizer, its config and its tokenizer's file: a new one, or the weights' own."""
    if setting.config.from_weights:
        folder = setting.weights / "clip"
        model, tokenizer, config = load_clip(folder)
    else:
        folder, config = setting.scratch / "clip", DEFAULT_CONFIG
        model = build_clip(config)
        load_imagenet_trunk(model)
        tokenizer = build_tokenizer([*list(setting.captions) * 4, *SentenceTeacher().words()], config, folder)
    model.train().requires_grad_(True)
    model.visual.trunk.requires_grad_(False).eval()
    return model, tokenizer, config, (folder / "tokenizer.json").read_bytes()


class JudgeLoss(nn.Module):
    """Contrast of pictures with phrases, by the teacher and by the text tower, and how far the tower is from it.

    Args:
        model: `open_clip.CLIP` whose embeddings have the teacher's dimensions.
        tokenizer: texts to its tokens.
        size: side of the pictures that it takes, in pixels.
        config: seed, and the precision of the text tower.
    """

    def __init__(self, model: Any, tokenizer: Tokenizer, size: int, config: TrainConfig) -> None:
        super().__init__()
        self.model, self.tokenizer, self.size, self.config = model, tokenizer, size, config
        self.features, self.texts = torch.empty(0), list[str]()
        self.captions = self.embeddings = self.tokens = torch.empty(0)
        self.num_own = 0

    def train(self, mode: bool = True) -> JudgeLoss:
        """Set the mode; the trunk keeps ImageNet's statistics in both."""
        super().train(mode)
        self.model.visual.trunk.eval()
        return self

    @torch.no_grad()
    def gather(self, batches: Iterator[Batch], captions: list[str], teacher: SentenceTeacher) -> None:
        """Keep pooled trunk features float16 [N,D] of augmented views, and what the teacher makes of texts."""
        features, own = [], list[str]()
        trunk = self.model.visual.trunk.to(memory_format=torch.channels_last)
        views = min(NUM_VIEWS, self.config.num_steps * (self.config.total_batch or BATCH))
        while len(own) < views:
            batch = next(batches)
            rgb = batch.frames[:, 0, ..., :3].permute(0, 3, 1, 2).float() / 127.5 - 1
            rgb = functional.interpolate(rgb, size=(self.size, self.size), mode="area")
            features.append(trunk(rgb.contiguous(memory_format=torch.channels_last)).half())
            own += [caption.lower() for caption in batch.captions]
        phrases = Phrases.of(captions, teacher, self.config.seed)
        unlisted = sorted(set(own) - set(phrases.texts))
        self.texts = [*unlisted, *phrases.texts]
        row = {text: number for number, text in enumerate(self.texts)}
        self.features, self.captions = torch.cat(features), torch.tensor([row[caption] for caption in own])
        self.embeddings = torch.cat([teacher.embed(unlisted), phrases.embeddings])
        self.num_own = len(unlisted) + phrases.num_captions

    def feed(self, share: Share, world: World, step: int) -> Iterator[JudgeBatch]:
        """Micro-batches from a step on; half of the phrases beside them are captions."""
        while True:
            for part in range(share.rounds):
                generator = generator_of(self.config.seed, 2, step, world.rank, part)
                half = NUM_NEGATIVES // 2
                yield JudgeBatch(
                    views=torch.randint(len(self.features), (share.micro,), generator=generator),
                    phrases=torch.cat([torch.randint(self.num_own, (half,), generator=generator),
                                       torch.randint(len(self.texts), (half,), generator=generator)]),
                )  # fmt: skip
            step += 1

    def forward(self, batch: JudgeBatch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """The loss of a batch's views, and how often their own caption comes first among its phrases."""
        device = self.model.logit_scale.device
        own = self.captions[batch.views]
        rows = torch.cat([own, batch.phrases])
        taught = self.embeddings[rows].float().to(device)
        features = self.features[batch.views].float().to(device)
        pictures = functional.normalize(self.model.visual.head(features), dim=-1)
        unique, place = rows.unique(return_inverse=True)
        tokens = self.tokenizer([self.texts[row] for row in unique.tolist()]).to(device)
        with sdpa_kernel(SDPBackend.MATH), autocast(device, self.config.precision):  # faster than fused on a CPU
            said = self.model.encode_text(tokens, normalize=True).float()[place]
        target = _target(rows.to(device), taught, len(own))
        scale = self.model.logit_scale.exp().clamp(max=60)
        by_teacher, by_tower = scale * pictures @ taught.T, scale * pictures @ said.T
        loss = functional.cross_entropy(by_teacher, target) + functional.cross_entropy(by_tower, target)
        alike = (taught @ taught.T / TEMPERATURE).log_softmax(-1)
        likeness = (said @ said.T / TEMPERATURE).log_softmax(-1)
        agreement = functional.kl_div(likeness, alike, log_target=True, reduction="batchmean")
        cosine = (said * taught).sum(-1).mean()
        first = (rows[by_tower.argmax(1).cpu()] == own).float().mean().item()
        return loss + agreement + 4 * (1 - cosine), {"first": first, "cosine": cosine.item()}


def _target(rows: Tensor, taught: Tensor, own: int) -> Tensor:
    """What share of each of `own` pictures goes to each phrase, their own captions first: [own,N], rows of sum 1."""
    same = (rows[:own, None] == rows[None]).float()
    alike = (taught[:own] @ taught.T / TEMPERATURE).softmax(-1)
    return (1 - SHARED) * same / same.sum(1, keepdim=True) + SHARED * alike
