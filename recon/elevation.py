"""Estimate the elevation of a turntable from four frames' features by a 2-layer MLP (A.1): `load_elevation`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recon.checkpoint import load_parameters, read_config, save_module

POCKET_WEIGHTS = Path(__file__).parent / "weights" / "elevation"
NUM_FRAMES = 4
MAX_ELEVATION = math.pi / 4
"""Turntables are rendered at elevations in [0, pi/4] (paper 3.2); estimates are kept inside."""


@dataclass(kw_only=True, slots=True)
class ElevationConfig:
    """Size of the pocket elevation network."""

    size: int = 64
    """Frames are resized to this many pixels a side, >= 16."""
    channels: tuple[int, ...] = (24, 48, 96, 128)
    """Channels of the stride-2 feature layers."""
    hidden: int = 128
    """Width of the MLP's hidden layer, >= 1."""

    def __post_init__(self) -> None:
        self.channels = tuple(self.channels)
        if self.size < 16 or not self.channels or min(self.channels) < 1 or self.hidden < 1:
            raise ValueError(f"{self}: size must be >= 16, channels and hidden positive")


class ElevationEstimator(nn.Module):
    """Frames [B,4,3,S,S] in [0,1] on white, a quarter turn apart, to elevations [B] in radians."""

    config: Any
    """A dataclass with `size`, the side in pixels that frames are resized to."""

    @torch.no_grad()
    def estimate(self, frames: np.ndarray) -> float:
        """The elevation in radians, in [0, pi/4], of one turntable uint8 [V>=4,H,W,3|4] on white.

        Raises:
            ValueError: if there are fewer than four frames or the shape is wrong.
        """
        elevation = self(prepare(frames[None], self.config.size).to(next(self.parameters()).device))
        return float(elevation.clamp(0, MAX_ELEVATION))

    def save(self, folder: Path) -> None:
        """Write the network to `folder`."""
        save_module(self, asdict(self.config), folder)


class ElevationNetwork(ElevationEstimator):
    """The pocket estimator: strided convolutions in the place of DINO."""

    config: ElevationConfig

    def __init__(self, config: ElevationConfig | None = None):
        super().__init__()
        self.config = config or ElevationConfig()
        channels = self.config.channels
        layers: list[nn.Module] = []
        for inputs, outputs in zip((3, *channels[:-1]), channels, strict=True):
            layers += [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.GroupNorm(_groups(outputs), outputs), nn.SiLU()]
        self.features = nn.Sequential(*layers)
        self.mlp = nn.Sequential(
            nn.Linear(2 * channels[-1], self.config.hidden), nn.SiLU(), nn.Linear(self.config.hidden, 1)
        )

    def forward(self, frames: Tensor) -> Tensor:
        """The elevation [B], before `estimate` clamps it, of turntables [B,V,3,H,W] in [0,1] on white."""
        batch, count = frames.shape[:2]
        found = self.features(1 - frames.flatten(0, 1))
        pooled = torch.cat([found.mean((2, 3)), found.amax((2, 3))], 1)
        return self.mlp(pooled.view(batch, count, -1).mean(1))[:, 0]


def load_elevation(folder: Path = POCKET_WEIGHTS) -> ElevationNetwork:
    """Load a network written by `ElevationNetwork.save`; a ValueError says what is missing."""
    network = ElevationNetwork(ElevationConfig(**read_config(folder, "elevation network")))
    load_parameters(network, folder)
    return network


def quarters(azimuths: Sequence[float]) -> list[int]:
    """The four views that come nearest to quarter turns, by the azimuths of all in radians; the least number wins."""
    angles, turns = np.asarray(azimuths, np.float64)[:, None], np.arange(NUM_FRAMES) * (2 * math.pi / NUM_FRAMES)
    apart = np.abs((angles - turns + math.pi) % (2 * math.pi) - math.pi)
    return apart.round(6).argmin(0).tolist()


def prepare(frames: np.ndarray, size: int) -> Tensor:
    """Four uniformly spaced frames of each turntable uint8 [B,V,H,W,3|4], resized: [B,4,3,size,size] in [0,1]."""
    if frames.dtype != np.uint8 or frames.ndim != 5 or frames.shape[-1] not in (3, 4) or frames.shape[1] < NUM_FRAMES:
        raise ValueError(f"frames are {frames.dtype} {frames.shape[1:]}; the elevation wants uint8 [V>=4,H,W,3|4]")
    chosen = frames[:, np.arange(NUM_FRAMES) * frames.shape[1] // NUM_FRAMES, ..., :3]
    images = torch.from_numpy(np.ascontiguousarray(chosen)).permute(0, 1, 4, 2, 3).float() / 255
    resized = F.interpolate(images.flatten(0, 1), size=(size, size), mode="bilinear", antialias=True)
    return resized.view(*images.shape[:3], size, size)


def elevation_loss(network: ElevationEstimator, frames: Tensor, elevation: Tensor) -> Tensor:
    """Training loss: mean squared error in radians.

    Args:
        frames: [B,4,3,S,S] from `prepare`.
        elevation: [B] radians.
    """
    return F.mse_loss(network(frames), elevation)


def _groups(channels: int) -> int:
    return math.gcd(channels, 8)
