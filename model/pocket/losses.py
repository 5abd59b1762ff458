"""What each pocket model is trained on: one loss a model, over augmented turntables."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor, nn
from torch.nn import functional as F

from model.pocket.autoencoder import PocketAutoencoder
from model.pocket.data import Sample, TurntableSet, draw
from model.pocket.text import PocketTextEncoder
from model.pocket.unet import PocketUNet
from model.training import autocast

SCHEDULE = {
    "num_train_timesteps": 1000, "beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True, "clip_sample": False,
}  # fmt: skip
LossFn = Callable[[int, torch.Generator], tuple[Tensor, dict[str, float]]]


def draw_batch(
    turntables: TurntableSet, size: int, generator: torch.Generator, views: Callable[[], Tensor], roll_share: float = 0
) -> list[Sample]:
    """`size` augmented turntables of random assets; `views` picks each one's frames."""
    picks = torch.randint(len(turntables), (size,), generator=generator).tolist()
    return [draw(turntables, i, generator, views=views(), roll_share=roll_share) for i in picks]


def decoder_loss(model: PocketAutoencoder, turntables: TurntableSet, batch_size: int) -> LossFn:
    """Absolute error of colours, coverage and their gradients; half of the latents are slightly noised."""

    def loss_fn(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        samples = draw_batch(turntables, batch_size, generator, lambda: torch.randint(16, (1,), generator=generator))
        images = torch.cat([sample.video for sample in samples])
        with torch.no_grad():
            latents = model.encode(images)
        level = torch.rand(batch_size, 1, 1, 1, generator=generator) * 0.3 - 0.15
        latents = latents + level.clamp(min=0) * torch.randn(latents.shape, generator=generator)
        with autocast():
            decoded = model.decode(latents)
        decoded = decoded.float()
        flat = (decoded - images).abs().mean()
        edges = sum((decoded.diff(dim=d) - images.diff(dim=d)).abs().mean() for d in (-1, -2))
        clean = (level.flatten() <= 0).nonzero().flatten()
        mse = ((decoded[clean].clamp(-1, 1) - images[clean]) / 2).square().mean().clamp(min=1e-8)
        return flat + edges, {"psnr": -10 * math.log10(mse.item())}

    return loss_fn


class ImageTrainee(nn.Module):
    """The image UNet and its text encoder, trained together."""

    def __init__(self, unet: PocketUNet, text: PocketTextEncoder) -> None:
        super().__init__()
        self.unet, self.text = unet, text


def noised(latents: Tensor, skew: float, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Noise latents [B,K,C,h,w] at random timesteps [B]; returns (noisy, v target, timesteps).

    `skew` 1 draws timesteps evenly, above 1 more of the noisy ones, where shape and pose are decided.
    """
    schedule = DDPMScheduler(**SCHEDULE)
    uniform = torch.rand(latents.shape[0], generator=generator)
    timesteps: Any = ((1 - uniform**skew) * 1000).long().clamp(0, 999)
    noise = torch.randn(latents.shape, generator=generator).to(latents.device)
    return schedule.add_noise(latents, noise, timesteps), schedule.get_velocity(latents, noise, timesteps), timesteps


def image_loss(
    trainee: ImageTrainee, autoencoder: PocketAutoencoder, turntables: TurntableSet, batch_size: int,
    text_dropout: float = 0.1,
) -> LossFn:  # fmt: skip
    """The diffusion loss of text to image, on front views whose elevation the network is told."""

    def loss_fn(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        samples = draw_batch(turntables, batch_size, generator, lambda: torch.zeros(1, dtype=torch.long))
        with torch.no_grad():
            latents = autoencoder.encode(torch.cat([sample.video for sample in samples]))[:, None]
        noisy, target, timesteps = noised(latents, 1.2, generator)
        kept = torch.rand(batch_size, generator=generator) >= text_dropout
        prompts = [s.caption if keep else "" for s, keep in zip(samples, kept.tolist(), strict=True)]
        azimuth = torch.stack([sample.azimuths for sample in samples])
        elevation = torch.tensor([sample.elevation for sample in samples])
        with autocast():
            prediction = trainee.unet(noisy, timesteps, *trainee.text(prompts), azimuth, elevation)
        return F.mse_loss(prediction.float(), target), {}

    return loss_fn


def video_loss(
    unet: PocketUNet, text: PocketTextEncoder, autoencoder: PocketAutoencoder, turntables: TurntableSet,
    batch_size: int, num_frames: int = 16, skew: float = 2.0, text_dropout: float = 0.1,
) -> LossFn:  # fmt: skip
    """The diffusion loss of 3.1 on turntables whose frame 0 is given, and the elevation's error.

    `num_frames` below 16 trains on frame 0 and a random few of the others: more objects a step for the
    same work, and every camera apart. A quarter of the turntables start at a random view.
    """

    def views(generator: torch.Generator) -> Tensor:
        others = torch.randperm(15, generator=generator)[: num_frames - 1] + 1
        return torch.cat([torch.zeros(1, dtype=torch.long), others.sort().values])

    def loss_fn(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        samples = draw_batch(turntables, batch_size, generator, lambda: views(generator), roll_share=0.25)
        with torch.no_grad():
            videos = torch.cat([sample.video for sample in samples])
            latents = autoencoder.encode(videos).unflatten(0, (batch_size, -1))
            kept = torch.rand(batch_size, generator=generator) >= text_dropout
            prompts = [s.caption if keep else "" for s, keep in zip(samples, kept.tolist(), strict=True)]
            states, pooled = text(prompts)
        noisy, target, timesteps = noised(latents, skew, generator)
        azimuth = torch.stack([sample.azimuths for sample in samples])
        elevation = torch.tensor([sample.elevation for sample in samples])
        seen = elevation + math.radians(3) * torch.randn(batch_size, generator=generator)
        image = latents[:, 0]
        with autocast():
            prediction = unet(noisy, timesteps, states, pooled, azimuth, seen, image)
        diffusion = F.mse_loss(prediction[:, 1:].float(), target[:, 1:])
        seen_once = latents.flatten(0, 1) + 0.05 * torch.randn(latents.flatten(0, 1).shape, generator=generator)
        guessed = unet.estimate_elevation(seen_once)
        error = F.mse_loss(guessed, elevation.repeat_interleave(latents.shape[1]))
        high = timesteps >= 700
        by_level = {"high": F.mse_loss(prediction[high, 1:].float(), target[high, 1:]).item()} if high.any() else {}
        return diffusion + error, {"diffusion": diffusion.item(), "elevation": error.item(), **by_level}

    return loss_fn
