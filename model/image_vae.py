"""Encode frames one by one, for families whose autoencoder knows single images: `FramewiseVideoModel`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from model.latent_video import LatentVideoModel


class FramewiseVideoModel(LatentVideoModel):
    """Every frame has its own latent; T = F."""

    decode_chunk = 1
    """Frames that the decoder takes at a time where the settings give none."""

    def latent_shape(self, side: int) -> tuple[int, int, int, int]:
        """See `LatentVideoModel.latent_shape`."""
        vae = self.parts.networks["vae"].config
        factor = 2 ** (len(vae.block_out_channels) - 1)  # pyright: ignore
        if side % factor:
            raise ValueError(f"images are {side} pixels a side; they must be square, a multiple of {factor} a side")
        return (len(self.views), vae.latent_channels, side // factor, side // factor)  # pyright: ignore

    def encode(self, pixels: Tensor) -> Tensor:
        """See `LatentVideoModel.encode`."""
        return self.image_latents(pixels) * self.vae.config.scaling_factor

    def image_latents(self, pixels: Tensor) -> Tensor:
        """The autoencoder's mode [N,C,h,w] float32 of pixels [N,3,H,W], unscaled, one image at a time."""
        with single_precision(self.vae) as vae:
            rows = [vae.encode(row[None].to(vae.dtype)).latent_dist.mode() for row in pixels]
        return torch.cat(rows).float()

    def decode(self, latents: Tensor) -> Tensor:
        """See `LatentVideoModel.decode`; some frames at a time, which bounds memory."""
        vae = self.vae
        scaled = (latents / vae.config.scaling_factor).to(vae.dtype)
        chunks = scaled.split(self.config.decode_chunk or self.decode_chunk)
        return torch.cat([self.decode_frames(vae, chunk).float() for chunk in chunks])

    def decode_frames(self, vae: Any, latents: Tensor) -> Tensor:
        """Consecutive frames' latents [N,C,h,w], unscaled, to pixels [N,3,H,W]."""
        return vae.decode(latents).sample


@contextmanager
def single_precision(vae: Any) -> Iterator[Any]:
    """An autoencoder that asks for it in float32 for as long as the context lasts, as its encoder needs."""
    dtype = vae.dtype
    upcast = vae.config.get("force_upcast", False) and dtype != torch.float32
    try:
        yield vae.float() if upcast else vae
    finally:
        if upcast:
            vae.to(dtype)
