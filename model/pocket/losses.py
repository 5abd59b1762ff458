"""Train pocket generators, one loss a model over augmented turntables: `AutoencoderLoss`, `ImageLoss`, `VideoLoss`.

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
from model.pocket.conv_autoencoder import NUM_PIXEL_VALUES, ConvAutoencoder, calibrate
from model.pocket.data import Batch
from model.pocket.load import Autoencoder
from model.pocket.text import PocketTextEncoder
from model.pocket.unet import PocketUNet
from model.training import autocast
from model.weights import PATCH

SCHEDULE = {
    "num_train_timesteps": 1000, "beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True, "clip_sample": False,
}  # fmt: skip
NOISE_LEVELS = 4
"""Equal parts of the timesteps that a diffusion loss is reported by."""
Terms = dict[str, float]


class AutoencoderLoss(nn.Module):
    """Errors of the convolutional autoencoder's pictures; half of the tokens are noised by up to `noise`.

    Absolute error of premultiplied colours and coverage, of their gradients, and of the colours without their grey,
    and squared error: the absolute errors keep edges, the gradients thin parts, the third saturated colours.

    Tokens pass to the decoder with mean 0 and variance 1 in every channel, so that the noise has a meaning; what
    `calibrate` needs is averaged on the way. With a frozen encoder its own maps do that.
    """

    def __init__(self, model: ConvAutoencoder, config: TrainConfig, noise: float = 0.15) -> None:
        super().__init__()
        self.model, self.config, self.noise = model, config, noise
        channels = model.config["latent_channels"]
        self.frozen = not any(p.requires_grad for p in model.encoder.parameters())
        kept = {"mean": (channels,), "covariance": (channels, channels), "cross": (NUM_PIXEL_VALUES, channels)}
        self.moments = nn.ParameterDict(
            {name: nn.Parameter(torch.zeros(shape), requires_grad=False) for name, shape in kept.items()}
        )
        self.moments["weight"] = nn.Parameter(torch.zeros(1), requires_grad=False)

    def forward(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Terms]:
        """The loss, its parts, and the PSNR (dB) of the tokens that carry no noise, where there are such."""
        images = batch.videos().flatten(0, 1).contiguous(memory_format=torch.channels_last)
        level = torch.rand(len(images), 1, 1, 1, generator=generator).to(images.device) * 2 - 1
        with autocast(images.device, self.config.precision):
            tokens = self._tokens(images)
            tokens = tokens + level.clamp(min=0) * self.noise * normal(tokens, generator)
            decoded = self.model.decoder.pixels(tokens)
        error = decoded.float() - images
        colors = error[:, :3]
        parts = {
            "absolute": error.abs().mean(),
            "edges": error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean(),
            "squared": error.square().mean(),
            "chroma": (colors - colors.mean(1, keepdim=True)).abs().mean(),
        }
        loss = parts["absolute"] + 0.5 * parts["edges"] + 2 * parts["squared"] + parts["chroma"]
        terms = {name: part.item() for name, part in parts.items()}
        clean = (level.flatten() <= 0).nonzero().flatten()
        if len(clean):
            mse = (error[clean].detach() / 2).square().mean().clamp(min=1e-8)
            terms["psnr"] = -10 * math.log10(mse.item())
        return loss, terms

    def _tokens(self, images: Tensor) -> Tensor:
        """Standardised tokens [B,C,h,w]: by the batch in training, else by the average of batches."""
        if self.frozen:
            with torch.no_grad():
                return self.model.decoder.unmix(self.model.encode(images))
        tokens = self.model.encoder.tokens(images).float()
        if self.training:
            variance, mean = torch.var_mean(tokens, (0, 2, 3), correction=0)
            self._average(tokens.detach(), images)
        else:
            mean, variance = self.moment("mean"), self.moment("covariance").diagonal()
        return (tokens - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()

    @torch.no_grad()
    def _average(self, tokens: Tensor, images: Tensor) -> None:
        """Move the moments of tokens and their patches of pixels towards those of a batch."""
        rows = tokens.movedim(1, -1).flatten(0, -2)
        patches = F.pixel_unshuffle(images, PATCH).movedim(1, -1).flatten(0, -2)
        centred = rows - rows.mean(0)
        found = {
            "mean": rows.mean(0), "covariance": centred.T @ centred / len(rows),
            "cross": (patches - patches.mean(0)).T @ centred / len(rows), "weight": torch.ones(1),
        }  # fmt: skip
        for name, value in found.items():
            self.moments[name].mul_(0.99).add_(value.to(rows.device), alpha=0.01)

    def moment(self, name: str) -> Tensor:
        """An averaged moment; zeros before the first step."""
        return self.moments[name] / self.moments["weight"].clamp(min=1e-8)

    def calibrated(self) -> None:
        """Set the model's fixed maps from the averages; nothing with a frozen encoder."""
        if not self.frozen:
            mean, covariance, cross = (self.moment(name).cpu() for name in ("mean", "covariance", "cross"))
            calibrate(self.model, mean, covariance, cross)


def encoded(autoencoder: Autoencoder, batch: Batch) -> Tensor:
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
    """The diffusion loss of text to image, on views whose elevation is given; UNet and text encoder train together."""

    def __init__(
        self, unet: PocketUNet, text: PocketTextEncoder, autoencoder: Autoencoder, config: TrainConfig
    ) -> None:
        super().__init__()
        self.unet, self.text, self.autoencoder, self.config = unet, text, autoencoder, config

    def forward(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Terms]:
        """The loss, and the same by noise level."""
        with torch.no_grad():
            latents = encoded(self.autoencoder, batch)
            states, pooled = self.text(kept_captions(batch.captions, self.config.text_dropout, generator))
        noisy, target, timesteps = noised(latents, 1.2, generator)
        with autocast(latents.device, self.config.precision):
            prediction = self.unet(noisy, timesteps, states, pooled, batch.azimuths, batch.elevations)
        return diffusion_loss(prediction, target, timesteps)


class VideoLoss(nn.Module):
    """The diffusion loss of 3.1 on turntables whose frame 0 is given, and the error of the elevation guessed.

    Fewer than 16 frames a turntable train on frame 0 and a random few of the others: more objects a step
    for the same work, and every camera apart. `skew`: see `noised`.
    """

    def __init__(
        self, unet: PocketUNet, text: PocketTextEncoder, autoencoder: Autoencoder, config: TrainConfig,
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
