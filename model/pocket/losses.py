"""What each pocket generator is trained on: one loss a model, over augmented turntables.

Each is a module of everything that it takes to compute it; what of it is trained, `requires_grad` tells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import TrainConfig
from model.pocket.autoencoder import PocketAutoencoder
from model.pocket.data import Batch
from model.pocket.text import PocketTextEncoder
from model.pocket.unet import PocketUNet
from model.training import autocast

SCHEDULE = {
    "num_train_timesteps": 1000, "beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True, "clip_sample": False,
}  # fmt: skip
NOISE_LEVELS = 4
"""Equal parts of the timesteps that a diffusion loss is reported by."""
Terms = dict[str, float]


class DecoderLoss(nn.Module):
    """Absolute error of colours, coverage and their gradients; half of the latents are slightly noised."""

    def __init__(self, model: PocketAutoencoder, config: TrainConfig) -> None:
        super().__init__()
        self.model, self.config = model, config

    def forward(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Terms]:
        """The loss, and the PSNR (dB) of the latents that carry no noise, where there are such."""
        images = batch.videos().flatten(0, 1)
        with torch.no_grad():
            latents = self.model.encode(images)
        level = torch.rand(len(images), 1, 1, 1, generator=generator).to(images.device) * 0.3 - 0.15
        latents = latents + level.clamp(min=0) * normal(latents, generator)
        with autocast(images.device, self.config.precision):
            decoded = self.model.decode(latents)
        decoded = decoded.float()
        flat = (decoded - images).abs().mean()
        edges = sum((decoded.diff(dim=d) - images.diff(dim=d)).abs().mean() for d in (-1, -2))
        clean = (level.flatten() <= 0).nonzero().flatten()
        mse = ((decoded[clean].clamp(-1, 1) - images[clean]) / 2).square().mean().clamp(min=1e-8)
        return flat + edges, {"psnr": -10 * math.log10(mse.item())} if len(clean) else {}


def encoded(autoencoder: PocketAutoencoder, batch: Batch) -> Tensor:
    """Latents float [B,K,C,h,w] of a batch's views: its own, or made now."""
    if batch.encoded:
        return batch.frames
    return autoencoder.encode(batch.videos().flatten(0, 1)).unflatten(0, (len(batch), -1))


def normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal noise of a tensor's shape, the same on every device."""
    return torch.randn(like.shape, generator=generator).to(like.device)


def noised(latents: Tensor, skew: float, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Noise latents [B,K,C,h,w] at random timesteps [B]; returns (noisy, v target, timesteps).

    `skew` 1 draws timesteps evenly, above 1 more of the noisy ones, where shape and pose are decided.
    """
    schedule = DDPMScheduler(**SCHEDULE)
    uniform = torch.rand(latents.shape[0], generator=generator).to(latents.device)
    timesteps: Any = ((1 - uniform**skew) * 1000).long().clamp(0, 999)
    noise = normal(latents, generator)
    return schedule.add_noise(latents, noise, timesteps), schedule.get_velocity(latents, noise, timesteps), timesteps


def kept_captions(captions: Sequence[str], dropout: float, generator: torch.Generator) -> list[str]:
    """The captions, `dropout` of them empty: what the network knows as "no condition"."""
    kept = torch.rand(len(captions), generator=generator) >= dropout
    return [caption if keep else "" for caption, keep in zip(captions, kept.tolist(), strict=True)]


def diffusion_loss(prediction: Tensor, target: Tensor, timesteps: Tensor) -> tuple[Tensor, Terms]:
    """Mean squared error of predictions [B,...], and the same by quarter of the timesteps, for those that occur."""
    errors = (prediction.float() - target).square().flatten(1).mean(1)
    levels = timesteps * NOISE_LEVELS // 1000
    terms = {f"level_{k}": errors[levels == k].mean().item() for k in set(levels.tolist())}
    return errors.mean(), terms


class ImageLoss(nn.Module):
    """The diffusion loss of text to image, on views whose elevation is told; UNet and text encoder train together."""

    def __init__(
        self, unet: PocketUNet, text: PocketTextEncoder, autoencoder: PocketAutoencoder, config: TrainConfig
    ) -> None:
        super().__init__()
        self.unet, self.text, self.autoencoder, self.config = unet, text, autoencoder, config

    def forward(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Terms]:
        """The loss, and the same by noise level."""
        with torch.no_grad():
            latents = encoded(self.autoencoder, batch)
        noisy, target, timesteps = noised(latents, 1.2, generator)
        prompts = kept_captions(batch.captions, self.config.text_dropout, generator)
        with autocast(latents.device, self.config.precision):
            states, pooled = self.text(prompts)
            prediction = self.unet(noisy, timesteps, states, pooled, batch.azimuths, batch.elevations)
        return diffusion_loss(prediction, target, timesteps)


class VideoLoss(nn.Module):
    """The diffusion loss of 3.1 on turntables whose frame 0 is given, and the error of the elevation guessed.

    Fewer than 16 frames a turntable train on frame 0 and a random few of the others: more objects a step
    for the same work, and every camera apart. `skew`: see `noised`.
    """

    def __init__(
        self, unet: PocketUNet, text: PocketTextEncoder, autoencoder: PocketAutoencoder, config: TrainConfig,
        skew: float = 2.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.unet, self.text, self.autoencoder, self.config, self.skew = unet, text, autoencoder, config, skew

    def forward(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Terms]:
        """The loss, its two parts, and the diffusion loss by noise level."""
        with torch.no_grad():
            latents = encoded(self.autoencoder, batch)
            states, pooled = self.text(kept_captions(batch.captions, self.config.text_dropout, generator))
        noisy, target, timesteps = noised(latents, self.skew, generator)
        spread = math.radians(3) * normal(batch.elevations, generator)
        with autocast(latents.device, self.config.precision):
            prediction = self.unet(
                noisy, timesteps, states, pooled, batch.azimuths, batch.elevations + spread, latents[:, 0]
            )
        diffusion, levels = diffusion_loss(prediction[:, 1:], target[:, 1:], timesteps)
        flat = latents.flatten(0, 1)
        guessed = self.unet.estimate_elevation(flat + 0.05 * normal(flat, generator))
        error = F.mse_loss(guessed, batch.elevations.repeat_interleave(latents.shape[1]))
        return diffusion + error, {"diffusion": diffusion.item(), "elevation": error.item(), **levels}
