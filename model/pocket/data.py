"""Draw turntables for training, with views, hue, mirror, start view and captions that follow: `draw`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.config import Drawing
from model.pocket.pixels import to_frames, to_premultiplied

COLORS = (
    "red", "orange", "yellow", "green", "teal", "blue", "purple", "pink", "brown", "black", "grey", "white",
)  # fmt: skip
_HUES = ((18, "red"), (42, "orange"), (70, "yellow"), (155, "green"), (195, "teal"), (255, "blue"), (290, "purple"),
         (345, "pink"), (361, "red"))  # fmt: skip


@dataclass(kw_only=True, slots=True)
class Turntable:
    """One turntable as it lies in a shard.

    `frame(k)` is view k: uint8 [S,S,4] over white, and coverage; float16 latents [C,h,w] where `encoded`.
    """

    frame: Callable[[int], NDArray[Any]]
    count: int
    caption: str
    elevation: float
    """Radians."""
    encoded: bool = False


@dataclass(kw_only=True, slots=True)
class Batch:
    """B augmented turntables: captions, `azimuths` [B,K] and `elevations` [B] in radians, and their views.

    `frames` are uint8 [B,K,S,S,4], or latents float [B,K,C,h,w] that were made from such.
    """

    frames: Tensor
    captions: list[str]
    azimuths: Tensor
    elevations: Tensor

    def __len__(self) -> int:
        return len(self.captions)

    @property
    def encoded(self) -> bool:
        """Whether the views are latents."""
        return self.frames.dtype != torch.uint8

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        tensors = {name: getattr(self, name).to(device) for name in ("frames", "azimuths", "elevations")}
        return replace(self, **tensors)

    def videos(self) -> Tensor:
        """float [B,K,4,S,S] in [-1,1], premultiplied."""
        return to_premultiplied(self.frames)


def stack(samples: Sequence[Batch]) -> Batch:
    """Several batches as one."""
    return Batch(
        frames=torch.cat([sample.frames for sample in samples]),
        captions=[caption for sample in samples for caption in sample.captions],
        azimuths=torch.cat([sample.azimuths for sample in samples]),
        elevations=torch.cat([sample.elevations for sample in samples]),
    )


def hue_rotation(angle: float) -> Tensor:
    """The 3x3 matrix that turns RGB colours by `angle` radians about the grey axis, keeping grey."""
    cos, sin = math.cos(angle), math.sin(angle)
    base = (1 - cos) / 3
    root = sin / math.sqrt(3)
    return torch.tensor([
        [cos + base, base - root, base + root],
        [base + root, cos + base, base - root],
        [base - root, base + root, cos + base],
    ])  # fmt: skip


def color_name(image: Tensor) -> str:
    """The colour word for what a view mostly shows; `image` is [4,S,S] in [-1,1], premultiplied."""
    pixels = (image / 2 + 0.5).flatten(1)
    rgb, alpha = pixels[:3], pixels[3]
    if alpha.sum() < 1:
        return "white"
    high, low = rgb.max(0).values, rgb.min(0).values
    chroma = high - low
    if (chroma.sum() / alpha.sum()) < 0.10:
        value = (high.sum() / alpha.sum()).item()
        return "black" if value < 0.25 else "grey" if value < 0.68 else "white"
    mean = (rgb * chroma).sum(1) / chroma.sum()
    high, low = mean.max().item(), mean.min().item()
    hue = _hue(mean.tolist(), high, high - low)
    name = next(name for limit, name in _HUES if hue < limit)
    return "brown" if (name in ("orange", "red") and high < 0.62 and (high - low) / high < 0.72) else name


def _hue(rgb: list[float], high: float, chroma: float) -> float:
    red, green, blue = rgb
    if high == red:
        return 60 * ((green - blue) / chroma) % 360
    return 60 * (2 + (blue - red) / chroma) if high == green else 60 * (4 + (red - green) / chroma)


def recolored_caption(caption: str, color: str | None) -> str:
    """The caption with its colour words taken out and `color`, if any, put before the noun phrase."""
    words = [word for word in caption.split() if word not in COLORS and word != "gray"]
    if color is None:
        return " ".join(words)
    if words and words[0] in ("a", "an"):
        return " ".join(["an" if color == "orange" else "a", color, *words[1:]])
    return " ".join([color, *words])


def frames_of(drawing: Drawing, total: int, generator: torch.Generator) -> Tensor:
    """Which of a turntable's `total` frames are drawn, counted from the start, in order: int64 [count]."""
    if drawing.views == "front":
        return torch.zeros(1, dtype=torch.long)
    if drawing.views == "any":
        return torch.randint(total, (1,), generator=generator)
    if drawing.views == "quarters":
        return torch.arange(4) * total // 4 + torch.randint(total, (1,), generator=generator)
    if drawing.views == "some":
        others = torch.randperm(total - 1, generator=generator)[: drawing.count - 1] + 1
        return torch.cat([torch.zeros(1, dtype=torch.long), others.sort().values])
    return torch.arange(total)


def draw(turntable: Turntable, drawing: Drawing, generator: torch.Generator) -> Batch:
    """One turntable, augmented.

    Half of the draws turn the hue, half are mirrored. The caption names the colour that is then seen.
    Azimuths are relative to the start. Latents were made from such draws: of them only views and start are drawn.
    """
    uniform = torch.rand(5, generator=generator).tolist()
    count = turntable.count
    start = int(uniform[0] / drawing.roll_share * count) if uniform[0] < drawing.roll_share else 0
    mirrored = uniform[1] < 0.5
    offsets = frames_of(drawing, count, generator)
    if turntable.encoded:
        order = (start + offsets) % count
        latents = torch.from_numpy(np.stack([turntable.frame(k) for k in order.tolist()])).float()
        return _batch(latents, turntable, turntable.caption, offsets)
    order = (start + (-offsets if mirrored else offsets)) % count
    video = to_premultiplied(torch.from_numpy(np.stack([turntable.frame(k) for k in order.tolist()])))
    if mirrored:
        video = video.flip(-1)
    caption = turntable.caption
    turned = uniform[2] < 0.5
    if turned:
        video = rotate_hue(video, uniform[3] * 2 * math.pi)
    if turned or uniform[4] < 0.5:
        caption = recolored_caption(caption, color_name(video[0]) if uniform[4] < 0.6 else None)
    return _batch(to_frames(video), turntable, caption, offsets)


def _batch(views: Tensor, turntable: Turntable, caption: str, offsets: Tensor) -> Batch:
    return Batch(
        frames=views[None],
        captions=[caption],
        azimuths=offsets[None] * (2 * math.pi / turntable.count),
        elevations=torch.tensor([turntable.elevation]),
    )


def rotate_hue(video: Tensor, angle: float) -> Tensor:
    """Turn the hue of [K,4,S,S] in [-1,1], premultiplied, by `angle` radians; coverage stays."""
    rgb, alpha = video[:, :3] / 2 + 0.5, video[:, 3:]
    turned = torch.einsum("ij,kjhw->kihw", hue_rotation(angle), rgb).clamp_(min=0)
    return torch.cat([torch.minimum(turned, alpha / 2 + 0.5) * 2 - 1, alpha], 1)
