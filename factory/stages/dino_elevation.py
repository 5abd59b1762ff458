"""Estimate elevation on DINOv2 as the paper does (A.1): `load_estimator`, of this or the pocket kind by its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recon.checkpoint import load_parameters, read_config
from recon.elevation import POCKET_WEIGHTS, ElevationEstimator, load_elevation

IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(kw_only=True, slots=True)
class DinoConfig:
    """Size of the paper's estimator."""

    backbone: dict[str, Any]
    """The `Dinov2Config`."""
    size: int
    """Frames are resized to this many pixels a side, a multiple of the backbone's patch."""
    hidden: int = 512
    """Width of the MLP's hidden layer, >= 1."""


class DinoElevation(ElevationEstimator):
    """The paper's estimator (A.1): DINOv2's class token of each frame, frozen; their mean; a 2-layer MLP.

    Args:
        backbone: a transformers `Dinov2Model`.
        size: see `DinoConfig`; None takes 16 patches a side.
    """

    config: DinoConfig
    mean: Tensor
    deviation: Tensor

    def __init__(self, backbone: Any, size: int | None = None, hidden: int = 512) -> None:
        super().__init__()
        patch, width = backbone.config.patch_size, backbone.config.hidden_size
        self.config = DinoConfig(backbone=backbone.config.to_dict(), size=size or 16 * patch, hidden=hidden)
        self.backbone = backbone.eval().requires_grad_(False)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, 1))
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(IMAGENET_DEVIATION).view(3, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> DinoElevation:
        """As of any module; the backbone stays in evaluation."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, frames: Tensor) -> Tensor:
        """Frames [B,4,3,S,S] in [0,1] to elevations [B] in radians."""
        with torch.no_grad():
            pixels = (frames.flatten(0, 1) - self.mean) / self.deviation
            tokens = self.backbone(pixel_values=pixels).last_hidden_state[:, 0]
        return self.mlp(tokens.unflatten(0, frames.shape[:2]).mean(1))[:, 0]


def load_backbone(folder: Path) -> Any:
    """The `Dinov2Model` in a local folder."""
    from recon.torchvision_shim import import_torchvision

    import_torchvision()
    from transformers import Dinov2Model

    return Dinov2Model.from_pretrained(folder, local_files_only=True)


def load_estimator(spec: str | Path) -> ElevationEstimator:
    """The elevation estimator of "pocket" or a folder that `save` wrote; a ValueError says what is missing."""
    folder = POCKET_WEIGHTS if spec == "pocket" else Path(spec)
    config = read_config(folder, "elevation network")
    if "backbone" not in config:
        return load_elevation(folder)
    from recon.torchvision_shim import import_torchvision

    import_torchvision()
    from transformers import Dinov2Config, Dinov2Model

    network = DinoElevation(Dinov2Model(Dinov2Config(**config.pop("backbone"))), **config)
    load_parameters(network, folder)
    return network
