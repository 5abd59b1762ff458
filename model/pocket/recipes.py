"""Train the pocket generators in order: `autoencoder`, `image`, `video` (all layers), `temporal` (those only)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.config import ImageConfig, VideoConfig
from model.pocket.conv_autoencoder import ConvAutoencoder
from model.pocket.data import COLORS, Batch
from model.pocket.image import PocketImageModel
from model.pocket.load import load_autoencoder
from model.pocket.losses import AutoencoderLoss, ImageLoss, VideoLoss
from model.pocket.text import PocketTextEncoder, train_tokenizer
from model.pocket.unet import Layer, PocketUNet
from model.pocket.video import PocketVideoModel
from model.temporal import freeze_spatial
from model.training import Recipe, Setting
from model.views import PAPER_VIEWS

LATENT_CHANNELS = 24
WIDTHS = (96, 192)
ENCODER_VIEWS = 3000
"""Augmented views that the closed-form encoder is fitted to."""


def autoencoder(setting: Setting) -> Recipe:
    """Train encoder and decoder; from weights the decoder alone, so that latents stay what they are."""
    if setting.config.from_weights:
        model = ConvAutoencoder.from_pretrained(setting.weights / "autoencoder").float()
        model.encoder.requires_grad_(False)
    else:
        model = ConvAutoencoder()
    loss = AutoencoderLoss(model, setting.config)

    def save(folder: Path) -> None:
        loss.calibrated()
        save_half(model, folder / "autoencoder")

    def sheet(batch: Batch) -> np.ndarray:
        loss.calibrated()
        return model.decode_frames(model.encode_frames(batch.frames)).cpu().numpy()

    return Recipe(loss=loss, save=save, gathered=("moments.",), sheet=sheet)


def image(setting: Setting) -> Recipe:
    """Train the image UNet and its text encoder together."""
    autoencoder = load_autoencoder(setting.weights / "autoencoder")
    if setting.config.from_weights:
        unet = PocketUNet.from_pretrained(setting.weights / "image").float()
        text = PocketTextEncoder.load(setting.weights / "text_encoder")
    else:
        channels = autoencoder.config["latent_channels"]
        unet = PocketUNet(latent_channels=channels, latent_size=setting.size // 16, widths=WIDTHS)
        text = PocketTextEncoder(train_tokenizer([*setting.captions, *(f"a {color} thing" for color in COLORS)]))

    def save(folder: Path) -> None:
        save_half(unet, folder / "image")
        text.save(folder / "text_encoder")

    def sheet(batch: Batch) -> np.ndarray:
        config = ImageConfig(steps=20, guidance_scale=3.0, size=setting.size)
        model = PocketImageModel(unet, text, autoencoder, config, "", "", {})
        return model.generate(batch.captions, range(len(batch)))[:, None]

    return Recipe(
        loss=ImageLoss(unet.train(), text.train(), autoencoder, setting.config),
        save=save, sheet=sheet, blocks=_blocks(unet),
    )  # fmt: skip


def video(setting: Setting) -> Recipe:
    """Start from the image model and train every layer on frame 0 and three other views of each turntable."""
    if setting.config.from_weights:
        unet = PocketUNet.from_pretrained(setting.weights / "video").float()
    else:
        image = PocketUNet.from_pretrained(setting.weights / "image").float()
        sizes: dict[str, Any] = {key: value for key, value in image.config.items() if not key.startswith("_")}
        unet = PocketUNet(**{**sizes, "temporal": True})
        unet.load_state_dict(image.state_dict(), strict=False)
    return _turntables(unet, setting, skew=3.0)


def temporal(setting: Setting) -> Recipe:
    """Fine-tune only the temporal layers, on whole turntables; the spatial ones stay bit for bit (3.1)."""
    unet = PocketUNet.from_pretrained(setting.weights / "video").float()
    freeze_spatial(unet, "pocket")
    return _turntables(unet, setting, skew=2.0)


def _turntables(unet: PocketUNet, setting: Setting, skew: float) -> Recipe:
    autoencoder = load_autoencoder(setting.weights / "autoencoder")
    text = PocketTextEncoder.load(setting.weights / "text_encoder").eval().requires_grad_(False)

    def sheet(batch: Batch) -> np.ndarray:
        config = VideoConfig(steps=4, guidance_scale=1.0)
        model = PocketVideoModel(unet, text, autoencoder, config, "", "", {})
        first = autoencoder.decode_frames(batch.frames[:, 0]) if batch.encoded else batch.frames[:, 0]
        frames = model.generate(first.cpu().numpy(), batch.captions, range(len(batch)))
        return frames[:, :: PAPER_VIEWS // min(PAPER_VIEWS, 8)]

    return Recipe(
        loss=VideoLoss(unet.train(), text, autoencoder, setting.config, skew),
        save=lambda folder: save_half(unet, folder / "video"),
        sheet=sheet, blocks=_blocks(unet),
    )  # fmt: skip


def _blocks(unet: PocketUNet) -> list[torch.nn.Module]:
    return [module for module in unet.modules() if isinstance(module, Layer)]


def save_half(model, folder: Path) -> None:
    """Write a float16 copy of a diffusers model to `folder`; the model itself stays float32."""
    half = type(model)(**{k: v for k, v in model.config.items() if not k.startswith("_")})
    half.load_state_dict(model.state_dict())
    half.half().save_pretrained(folder)
