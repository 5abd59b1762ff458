"""Train the estimators: `elevation` (A.1) by the pocket or the paper's network, and `mask`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from factory.stages.dino_elevation import DinoElevation, load_backbone, load_estimator
from model.pocket.data import Batch
from model.training import Recipe, Setting
from recon.elevation import (
    ElevationEstimator,
    ElevationNetwork,
    elevation_loss,
    load_elevation,
    prepare,
)
from recon.masks import MaskNetwork, PocketMasker, mask_loss
from recon.user_error import UserError


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
