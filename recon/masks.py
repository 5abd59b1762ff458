"""Mask the object in turntable frames, by the alpha channel or a segmentation network: `masks_of`, `PocketMasker`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recon.checkpoint import load_parameters, read_config, save_module

POCKET_WEIGHTS = Path(__file__).parent / "weights" / "mask"


class Masker(Protocol):
    """Anything that segments the object in uint8 [N,H,W,3] frames on white, as uint8 [N,H,W] coverage."""

    def __call__(self, frames: np.ndarray) -> np.ndarray: ...


@dataclass(kw_only=True, slots=True)
class MaskConfig:
    """Size of the pocket mask network."""

    channels: tuple[int, ...] = (16, 32, 48, 64)
    """Channels at strides 2, 4, 8, ...; two or more levels."""

    def __post_init__(self) -> None:
        self.channels = tuple(self.channels)
        if len(self.channels) < 2 or min(self.channels) < 1:
            raise ValueError(f"channels are {self.channels}; give two or more positive numbers")


class MaskNetwork(nn.Module):
    """A small U-Net: RGB on white [B,3,H,W] in [0,1] to mask logits [B,1,H,W], at any size."""

    def __init__(self, config: MaskConfig | None = None):
        super().__init__()
        self.config = config or MaskConfig()
        channels = self.config.channels
        self.down = nn.ModuleList(
            nn.Sequential(_conv(inputs, outputs, stride=2), _conv(outputs, outputs))
            for inputs, outputs in zip((3, *channels[:-1]), channels, strict=True)
        )
        self.up = nn.ModuleList(
            _conv(deep + shallow, shallow) for deep, shallow in zip(channels[:0:-1], channels[-2::-1], strict=True)
        )
        self.head = nn.Sequential(_conv(channels[0] + 3, 8), nn.Conv2d(8, 1, 3, padding=1))

    def forward(self, rgb: Tensor) -> Tensor:
        """Logits [B,1,H,W] of the coverage of pictures [B,3,H,W] in [0,1]."""
        height, width = rgb.shape[-2:]
        multiple = 2 ** len(self.config.channels)
        x = F.pad(rgb, (0, -width % multiple, 0, -height % multiple), value=1.0) - 0.5
        skips = [x]
        for block in self.down:
            skips.append(block(skips[-1]))
        y = skips.pop()
        for block in self.up:
            y = block(torch.cat([F.interpolate(y, scale_factor=2.0), skips.pop()], 1))
        logits = self.head(torch.cat([F.interpolate(y, scale_factor=2.0), skips.pop()], 1))
        return logits[..., :height, :width]


class PocketMasker:
    """The embedded mask network as a `Masker`."""

    def __init__(self, network: MaskNetwork):
        self.network = network.eval()

    @classmethod
    def load(cls, folder: Path = POCKET_WEIGHTS) -> PocketMasker:
        """Load a network written by `save`; a ValueError says what is missing."""
        network = MaskNetwork(MaskConfig(**read_config(folder, "mask network")))
        load_parameters(network, folder)
        return cls(network)

    def save(self, folder: Path) -> None:
        """Write the network to `folder`."""
        save_module(self.network, asdict(self.network.config), folder)

    @torch.no_grad()
    def __call__(self, frames: np.ndarray) -> np.ndarray:
        rgb = torch.from_numpy(np.ascontiguousarray(frames[..., :3])).permute(0, 3, 1, 2).float() / 255
        alpha = self.network(rgb.contiguous(memory_format=torch.channels_last))[:, 0].sigmoid()
        return (alpha * 255).round().byte().numpy()


def masks_of(frames: np.ndarray, masker: Masker | None = None) -> np.ndarray:
    """Coverage uint8 [N,H,W] of frames uint8 [N,H,W,3|4].

    Raises:
        ValueError: if the frames have no alpha channel and no masker is given, or the shape is wrong.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] not in (3, 4):
        raise ValueError(f"frames are {frames.dtype} {frames.shape}; masks want uint8 [N,H,W,3] or [N,H,W,4]")
    if frames.shape[-1] == 4:
        return np.ascontiguousarray(frames[..., 3])
    if masker is None:
        raise ValueError("the frames have no alpha channel; give RGBA frames or a masker (PocketMasker, OnnxMasker)")
    return masker(frames)


def mask_loss(network: MaskNetwork, rgb: Tensor, alpha: Tensor) -> Tensor:
    """Training loss: binary cross-entropy plus the soft Dice loss, which keeps small objects from vanishing.

    Args:
        rgb: [B,3,H,W] in [0,1], on white.
        alpha: [B,H,W] coverage in [0,1].
    """
    logits = network(rgb)[:, 0]
    probability = logits.sigmoid()
    overlap = 2 * (probability * alpha).sum((1, 2)) + 1
    dice = 1 - overlap / ((probability.square() + alpha.square()).sum((1, 2)) + 1)
    return F.binary_cross_entropy_with_logits(logits, alpha) + dice.mean()


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.ReLU())
