"""Encode RGBA linearly by patches of 16x16, and decode by convolutions: `PocketAutoencoder`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from model.pocket.pixels import to_frames, to_premultiplied
from model.weights import PATCH


class FrameCodec:
    """Frames of a video through an autoencoder that has `encode`, `decode` and a `dtype`."""

    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]
    dtype: torch.dtype

    @staticmethod
    def check_sides(x: Tensor) -> None:
        """ValueError for images [...,S,S] that do not divide into patches."""
        if x.shape[-1] % PATCH or x.shape[-2] % PATCH:
            raise ValueError(f"image is {tuple(x.shape[-2:])} pixels; both sides must be multiples of {PATCH}")

    def encode_frames(self, frames: Tensor) -> Tensor:
        """uint8 [...,H,W,4] to latents [...,C,H/16,W/16]."""
        flat = to_premultiplied(frames.reshape(-1, *frames.shape[-3:]))
        latents = self.encode(flat.to(self.dtype))
        return latents.reshape(*frames.shape[:-3], *latents.shape[1:])

    def decode_frames(self, latents: Tensor) -> Tensor:
        """Latents [...,C,h,w] to uint8 [...,16h,16w,4]."""
        decoded = self.decode(latents.reshape(-1, *latents.shape[-3:]).to(self.dtype))
        return to_frames(decoded.reshape(*latents.shape[:-3], *decoded.shape[1:]))


class PocketAutoencoder(FrameCodec, ModelMixin, ConfigMixin):
    """RGBA [B,4,S,S] in [-1,1] to latents [B,C,S/16,S/16] of about unit scale, and back; earlier weights are of it.

    The encoder is one strided convolution that was set to principal components of the training patches, so that it
    encodes a video in a few milliseconds and commutes with linear colour changes. The decoder was learnt.
    """

    @register_to_config
    def __init__(self, latent_channels: int = 16, widths: tuple[int, ...] = (256, 128, 64)) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(4, latent_channels, PATCH, stride=PATCH)
        wide, middle, narrow = widths
        self.decoder = nn.Sequential(
            nn.Conv2d(latent_channels, wide, 3, padding=1),
            _block(wide),
            _block(wide),
            nn.Conv2d(wide, middle * 4, 1),
            nn.PixelShuffle(2),
            _block(middle),
            nn.Conv2d(middle, narrow * 4, 1),
            nn.PixelShuffle(2),
            _block(narrow),
            nn.GroupNorm(8, narrow),
            nn.SiLU(),
            nn.Conv2d(narrow, 4 * 16, 3, padding=1),
            nn.PixelShuffle(4),
        )

    def encode(self, x: Tensor) -> Tensor:
        """RGBA [B,4,S,S] in [-1,1], premultiplied, S a multiple of 16, to latents [B,C,S/16,S/16]."""
        self.check_sides(x)
        return self.encoder(x)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B,C,h,w] to RGBA [B,4,16h,16w], about [-1,1], premultiplied."""
        return self.decoder(latents)


class _block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.resnet = ResnetBlock2D(in_channels=channels, temb_channels=None, groups=8)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tensor) -> Tensor:
        return self.resnet(x, None)
