"""How each pocket generator is trained, in order: autoencoder, image, video (all layers), temporal (those only)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from model.pocket.autoencoder import PocketAutoencoder, fit_encoder
from model.pocket.data import COLORS, TurntableSet, one_a_noun
from model.pocket.losses import ImageTrainee, decoder_loss, draw_batch, image_loss, video_loss
from model.pocket.text import PocketTextEncoder, train_tokenizer
from model.pocket.unet import PocketUNet
from model.temporal import freeze_spatial
from model.training import TrainConfig, train

LATENT_CHANNELS = 24
WIDTHS = (96, 192)


def train_autoencoder(turntables: TurntableSet, config: TrainConfig, weights: Path, runs: Path) -> None:
    """Fit the encoder in closed form on 3,000 augmented views, then train the decoder."""
    if config.from_weights:
        model = PocketAutoencoder.from_pretrained(weights / "autoencoder").float()
    else:
        model = PocketAutoencoder(latent_channels=LATENT_CHANNELS)
        generator = torch.Generator().manual_seed(config.seed)
        samples = draw_batch(turntables, 3000, generator, lambda: torch.randint(16, (1,), generator=generator))
        fit_encoder(model, torch.cat([sample.video for sample in samples]))
    model.encoder.requires_grad_(False)
    save_half(train(model, decoder_loss(model, turntables, batch_size=16), config, runs), weights / "autoencoder")


def train_image(turntables: TurntableSet, config: TrainConfig, weights: Path, runs: Path) -> None:
    """Train the image UNet and its text encoder together, on the front view of one asset for every noun."""
    autoencoder = load_frozen(PocketAutoencoder, weights / "autoencoder")
    torch.manual_seed(config.seed)
    if config.from_weights:
        unet = PocketUNet.from_pretrained(weights / "image").float()
        text = PocketTextEncoder.load(weights / "text_encoder")
    else:
        unet = PocketUNet(latent_channels=LATENT_CHANNELS, widths=WIDTHS)
        text = PocketTextEncoder(train_tokenizer([*turntables.captions, *(f"a {color} thing" for color in COLORS)]))
    trainee = ImageTrainee(unet, text).train()
    train(trainee, image_loss(trainee, autoencoder, one_a_noun(turntables), batch_size=16), config, runs)
    save_half(trainee.unet, weights / "image")
    trainee.text.save(weights / "text_encoder")


def train_video(turntables: TurntableSet, config: TrainConfig, weights: Path, runs: Path) -> None:
    """Start from the image model and train every layer on frame 0 and three other views of each turntable."""
    if config.from_weights:
        unet = PocketUNet.from_pretrained(weights / "video").float()
    else:
        unet = PocketUNet(latent_channels=LATENT_CHANNELS, widths=WIDTHS, temporal=True)
        unet.load_state_dict(PocketUNet.from_pretrained(weights / "image").float().state_dict(), strict=False)
    _train_turntables(unet, turntables, config, weights, runs, batch_size=8, num_frames=4, skew=3.0)


def train_temporal(turntables: TurntableSet, config: TrainConfig, weights: Path, runs: Path) -> None:
    """Fine-tune only the temporal layers, on whole turntables; the spatial ones stay bit for bit (3.1)."""
    unet = PocketUNet.from_pretrained(weights / "video").float()
    freeze_spatial(unet, "pocket")
    _train_turntables(unet, turntables, config, weights, runs, batch_size=2, num_frames=16, skew=2.0)


def _train_turntables(
    unet: PocketUNet, turntables: TurntableSet, config: TrainConfig, weights: Path, runs: Path, **batch: Any
) -> None:
    autoencoder = load_frozen(PocketAutoencoder, weights / "autoencoder")
    text = PocketTextEncoder.load(weights / "text_encoder").eval().requires_grad_(False)
    unet.train()
    loss = video_loss(unet, text, autoencoder, turntables, **batch)
    save_half(train(unet, loss, config, runs), weights / "video")


def load_frozen(kind: Any, folder: Path) -> Any:
    """A diffusers model from `folder`, float32, in evaluation mode, without gradients."""
    return kind.from_pretrained(folder).float().eval().requires_grad_(False)


def save_half(model, folder: Path) -> None:
    """Write a float16 copy of a diffusers model to `folder`; the model itself stays float32."""
    half = type(model)(**{k: v for k, v in model.config.items() if not k.startswith("_")})
    half.load_state_dict(model.state_dict())
    half.half().save_pretrained(folder)
