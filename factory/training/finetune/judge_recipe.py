"""Train the judge, a small image-text model of open_clip's form: the target `clip`.

Pictures learn to meet what a sentence encoder makes of their captions (Radford et al. 2021, with the text side of
Zhai et al. 2022 locked), and a small text tower learns to say what the sentence encoder says. It shares nothing
with the generators.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from model.config import Precision
from model.pocket.data import Batch
from model.pocket.sentence_teacher import TEACHER_DIM, Phrases, SentenceTeacher
from model.training import Recipe, Setting, autocast

NUM_NEGATIVES = 256
"""Phrases beside a batch's own captions that its pictures are told from."""
TEMPERATURE = 0.06
"""Of the teacher's similarities, where phrases that it thinks alike share a picture's target."""
SHARED = 0.2
"""Share of the target that goes by those similarities; the rest goes to equal captions."""
FROZEN_BLOCKS = 3
"""Stages of the trunk, at high resolution, that stay ImageNet's: half of a step's time, and edges are edges."""
SHIFT, SCALE, NOISE = 0.1, 0.15, 0.03
"""Augmentation: of the half side, of the size, and of the colours' range."""


def clip(setting: Setting) -> Recipe:
    """ImageNet's trunk, its later stages trained on with the statistics that it came with, and a text tower."""
    model, tokenizer, config, words = _judge(setting)
    loss = JudgeLoss(model, tokenizer, config["preprocess_cfg"]["size"], setting.config.precision)

    def gather(_: object) -> None:
        teacher = SentenceTeacher()
        loss.learn_from(Phrases.of(setting.captions, teacher, setting.config.seed), teacher)

    def save(folder: Path) -> None:
        save_clip(folder / "clip", model, config)
        (folder / "clip" / "tokenizer.json").write_bytes(words)

    return Recipe(loss=loss, save=save, gather=gather)


def _judge(setting: Setting) -> tuple[Any, Tokenizer, dict[str, Any], bytes]:
    """The network to train, its tokenizer, its config and its tokenizer's file: a new one, or the weights' own."""
    if setting.config.from_weights:
        folder = setting.weights / "clip"
        model, tokenizer, config = load_clip(folder)
    else:
        folder, config = setting.scratch / "clip", DEFAULT_CONFIG
        model = build_clip(config)
        load_imagenet_trunk(model)
        tokenizer = build_tokenizer([*setting.captions * 4, *SentenceTeacher().words()], config, folder)
    model.train().requires_grad_(True)
    for early in (model.visual.trunk.conv_stem, model.visual.trunk.bn1, model.visual.trunk.blocks[:FROZEN_BLOCKS]):
        early.requires_grad_(False)
    return model, tokenizer, config, (folder / "tokenizer.json").read_bytes()


class JudgeLoss(nn.Module):
    """Contrast of pictures with phrases, by the teacher and by the text tower, and of these two with each other.

    Args:
        model: `open_clip.CLIP`.
        tokenizer: texts to its tokens.
        size: side of the pictures that it takes, in pixels.
        precision: of the text tower; pictures pass in float32, which depthwise convolutions on a CPU are faster in.
    """

    def __init__(self, model: Any, tokenizer: Tokenizer, size: int, precision: Precision) -> None:
        super().__init__()
        self.model, self.tokenizer, self.size, self.precision = model, tokenizer, size, precision
        self.words = nn.Linear(TEACHER_DIM, model.text_projection.shape[1], bias=False)
        nn.init.orthogonal_(self.words.weight)
        self.phrases: Phrases | None = None
        self.teacher: SentenceTeacher | None = None
        self.row: dict[str, int] = {}

    def learn_from(self, phrases: Phrases, teacher: SentenceTeacher) -> None:
        """Set the phrases that negatives are drawn from, and who embeds captions that are not among them."""
        self.phrases, self.teacher = phrases, teacher
        self.row = {text: row for row, text in enumerate(phrases.texts)}

    def _taught(self, captions: Sequence[str], generator: torch.Generator) -> tuple[list[str], Tensor, Tensor]:
        """Captions and then negatives, their teacher embeddings float32 [N,384], and which are the same: int64 [N]."""
        assert self.phrases is not None
        assert self.teacher is not None
        captions = [caption.lower() for caption in captions]
        rows = self.phrases.rows(NUM_NEGATIVES, generator)
        texts = [*captions, *(self.phrases.texts[row] for row in rows.tolist())]
        known = [self.phrases.embeddings[self.row[text]] if text in self.row else None for text in captions]
        unknown = [text for text, embedding in zip(captions, known, strict=True) if embedding is None]
        fresh = iter(self.teacher.embed(unknown))
        own = torch.stack([next(fresh) if embedding is None else embedding for embedding in known])
        first = {text: number for number, text in reversed(list(enumerate(texts)))}
        numbers = torch.tensor([first[text] for text in texts])
        return texts, torch.cat([own, self.phrases.embeddings[rows]]).float(), numbers

    def train(self, mode: bool = True) -> JudgeLoss:
        """Set the mode; batch normalisation keeps ImageNet's statistics in both."""
        super().train(mode)
        for module in self.model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """The loss of one view a turntable, and how often its own caption comes first among all phrases."""
        device = self.words.weight.device
        texts, taught, numbers = self._taught(batch.captions, generator)
        taught, tokens = taught.to(device), self.tokenizer(texts).to(device)
        images = self._images(batch.frames[:, 0], generator)
        pictures = self.model.encode_image(images.contiguous(memory_format=torch.channels_last), normalize=True)
        known = functional.normalize(self.words(taught), dim=-1)
        with sdpa_kernel(SDPBackend.MATH), autocast(device, self.precision):  # on a CPU faster than fused attention
            said = self.model.encode_text(tokens, normalize=True).float()
        target = _target(numbers.to(device), taught, len(batch))
        scale = self.model.logit_scale.exp().clamp(max=60)
        by_teacher, by_tower = scale * pictures @ known.T, scale * pictures.detach() @ said.T
        cosine = (said * known.detach()).sum(-1).mean()
        loss = functional.cross_entropy(by_teacher, target) + functional.cross_entropy(by_tower, target)
        first = (numbers[by_tower.argmax(1).cpu()] == numbers[: len(batch)]).float().mean().item()
        return loss + 4 * (1 - cosine), {"first": first, "cosine": cosine.item()}

    def _images(self, frames: Tensor, generator: torch.Generator) -> Tensor:
        """Frames uint8 [B,S,S,4] over white as float [B,3,size,size] in [-1,1]; moved, scaled, noised in training."""
        rgb = frames[..., :3].permute(0, 3, 1, 2).float() / 127.5 - 1
        rgb = functional.interpolate(rgb, size=(self.size, self.size), mode="area")
        if not self.training:
            return rgb
        scales = 1 + SCALE * (2 * torch.rand(len(rgb), 1, 1, generator=generator) - 1)
        shifts = SHIFT * (2 * torch.rand(len(rgb), 2, 1, generator=generator) - 1)
        maps = torch.cat([scales * torch.eye(2).expand(len(rgb), 2, 2), shifts], -1).to(rgb.device)
        grid = functional.affine_grid(maps, list(rgb.shape), align_corners=False)
        moved = functional.grid_sample(rgb - 1, grid, align_corners=False) + 1  # white comes in from outside
        return moved + NOISE * torch.randn(moved.shape, generator=generator).to(moved.device)


def _target(numbers: Tensor, taught: Tensor, own: int) -> Tensor:
    """What share of each of `own` pictures goes to each phrase, their own captions first: [own,N], rows of sum 1."""
    same = (numbers[:own, None] == numbers[None]).float()
    alike = (taught[:own] @ taught.T / TEMPERATURE).softmax(-1)
    return (1 - SHARED) * same / same.sum(1, keepdim=True) + SHARED * alike
