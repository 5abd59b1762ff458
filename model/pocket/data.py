"""Turntables in memory, and their augmentation: hue, mirror, start view, and captions that follow."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from model.pocket.autoencoder import to_premultiplied

COLORS = (
    "red", "orange", "yellow", "green", "teal", "blue", "purple", "pink", "brown", "black", "grey", "white",
)  # fmt: skip
_HUES = ((18, "red"), (42, "orange"), (70, "yellow"), (155, "green"), (195, "teal"), (255, "blue"), (290, "purple"),
         (345, "pink"), (361, "red"))  # fmt: skip


@dataclass(kw_only=True, slots=True)
class TurntableSet:
    """Renders of N assets at E elevations.

    `frames` uint8 [N,E,16,S,S,4] (RGB over white, coverage), `elevations` [N,E] radians, N `captions`.
    """

    frames: Tensor
    elevations: Tensor
    captions: list[str]
    asset_ids: list[str]

    def __len__(self) -> int:
        return len(self.captions)


@dataclass(kw_only=True, slots=True)
class Sample:
    """One augmented turntable: `video` [K,4,S,S] in [-1,1], its caption and cameras (radians)."""

    video: Tensor
    caption: str
    azimuths: Tensor
    elevation: float


def one_a_noun(turntables: TurntableSet) -> TurntableSet:
    """The asset with the shortest caption for every last word of the captions: a world of distinct kinds."""
    shortest: dict[str, int] = {}
    plain = [recolored_caption(caption, None) for caption in turntables.captions]
    for index, caption in enumerate(plain):
        noun = caption.split()[-1] if caption else ""
        if noun not in shortest or len(caption) < len(plain[shortest[noun]]):
            shortest[noun] = index
    chosen = sorted(shortest.values())
    return TurntableSet(
        frames=turntables.frames[chosen],
        elevations=turntables.elevations[chosen],
        captions=[turntables.captions[index] for index in chosen],
        asset_ids=[turntables.asset_ids[index] for index in chosen],
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


def draw(
    turntables: TurntableSet, index: int, generator: torch.Generator, *, views: Tensor | None = None,
    roll_share: float = 0.0,
) -> Sample:  # fmt: skip
    """Draw an augmented turntable of asset `index`.

    Half of the draws turn the hue, half are mirrored, `roll_share` of them start at a random view
    instead of the front. The caption names the colour that is then seen. `views` picks frames, counted
    from the start (default: all); azimuths are relative to the start.
    """
    uniform = torch.rand(6, generator=generator).tolist()
    elevation = int(uniform[0] * turntables.elevations.shape[1])
    frames = turntables.frames[index, elevation]
    count = frames.shape[0]
    start = int(uniform[1] / roll_share * count) if uniform[1] < roll_share else 0
    mirrored = uniform[2] < 0.5
    offsets = torch.arange(count) if views is None else views
    order = (start + (-offsets if mirrored else offsets)) % count
    video = to_premultiplied(frames[order])
    if mirrored:
        video = video.flip(-1)
    caption = turntables.captions[index]
    turned = uniform[3] < 0.5
    if turned:
        video = rotate_hue(video, uniform[4] * 2 * math.pi)
    if turned or uniform[5] < 0.5:
        caption = recolored_caption(caption, color_name(video[0]) if uniform[5] < 0.6 else None)
    return Sample(
        video=video,
        caption=caption,
        azimuths=offsets * (2 * math.pi / count),
        elevation=float(turntables.elevations[index, elevation]),
    )


def rotate_hue(video: Tensor, angle: float) -> Tensor:
    """Turn the hue of [K,4,S,S] in [-1,1], premultiplied, by `angle` radians; coverage stays."""
    rgb, alpha = video[:, :3] / 2 + 0.5, video[:, 3:]
    turned = torch.einsum("ij,kjhw->kihw", hue_rotation(angle), rgb).clamp_(min=0)
    return torch.cat([torch.minimum(turned, alpha / 2 + 0.5) * 2 - 1, alpha], 1)
