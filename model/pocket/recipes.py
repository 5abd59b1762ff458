"""Train pocket generators in order: `autoencoder`, `text`, `image`, `video` (all layers), `temporal` (those alone)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.config import ImageConfig, VideoConfig
from model.pocket.conv_autoencoder import ConvAutoencoder
from model.pocket.data import Batch
from model.pocket.image import PocketImageModel
from model.pocket.load import load_autoencoder
from model.pocket.losses import AutoencoderLoss, ImageLoss, VideoLoss
from model.pocket.sentence_teacher import Phrases, SentenceTeacher
from model.pocket.text import PocketTextEncoder, train_tokenizer
from model.pocket.text_distillation import TextDistillation
from model.pocket.unet import Layer, PocketUNet
from model.pocket.video import PocketVideoModel
from model.temporal import freeze_spatial
from model.training import Recipe, Setting
from model.views import PAPER_VIEWS
from recon.int8 import read_model

LATENT_CHANNELS = 24
WIDTHS = (96, 192)
VOCABULARY = 4096
"""Tokens of the text encoder: captions and the teacher's words."""


def autoencoder(setting: Setting) -> Recipe:
    """Train encoder and decoder; from weights the decoder alone, so that latents stay what they are."""
    if setting.config.from_weights:
        model = read_model(ConvAutoencoder, setting.weights / "autoencoder")
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


def text(setting: Setting) -> Recipe:
    """Distil a sentence encoder into the text encoder: it learns from captions and from words that none holds."""
    if setting.config.from_weights:
        student = PocketTextEncoder.load(setting.weights / "text_encoder")
    else:
        words = SentenceTeacher().words()
        student = PocketTextEncoder(train_tokenizer([*list(setting.captions) * 4, *words], VOCABULARY))
    loss = TextDistillation(student.train(), setting.config)

    def gather(_: object) -> None:
        loss.phrases = Phrases.of(setting.captions, SentenceTeacher(), setting.config.seed)

    return Recipe(loss=loss, save=lambda folder: student.save(folder / "text_encoder"), gather=gather, feed=loss.feed)


def image(setting: Setting) -> Recipe:
    """Train the image UNet; the text encoder stays as it is."""
    autoencoder = load_autoencoder(setting.weights / "autoencoder")
    text = PocketTextEncoder.load(setting.weights / "text_encoder").eval().requires_grad_(False)
    if setting.config.from_weights:
        unet = read_model(PocketUNet, setting.weights / "image")
    else:
        channels = autoencoder.config["latent_channels"]
        unet = PocketUNet(latent_channels=channels, latent_size=setting.size // 16, widths=WIDTHS)

    def sheet(batch: Batch) -> np.ndarray:
        config = ImageConfig(steps=20, guidance_scale=3.0, size=setting.size)
        model = PocketImageModel(unet, text, autoencoder, config, "", "", {})
        return model.generate(batch.captions, range(len(batch)))[:, None]

    return Recipe(
        loss=ImageLoss(unet.train(), text, autoencoder, setting.config),
        save=lambda folder: save_half(unet, folder / "image"),
        sheet=sheet, blocks=_blocks(unet),
    )  # fmt: skip


def video(setting: Setting) -> Recipe:
    """Start from the image model and train every layer on frame 0 and three other views of each turntable."""
    if setting.config.from_weights:
        unet = read_model(PocketUNet, setting.weights / "video")
    else:
        image = read_model(PocketUNet, setting.weights / "image")
        sizes: dict[str, Any] = {key: value for key, value in image.config.items() if not key.startswith("_")}
        unet = PocketUNet(**{**sizes, "temporal": True})
        unet.load_state_dict(image.state_dict(), strict=False)
    return _turntables(unet, setting, skew=3.0)


def temporal(setting: Setting) -> Recipe:
    """Fine-tune only the temporal layers, on whole turntables; the spatial ones stay bit for bit (3.1)."""
    unet = read_model(PocketUNet, setting.weights / "video")
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
