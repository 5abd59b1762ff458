"""Denoise with spatial layers of an image model and temporal layers of a video model: `PocketUNet`.

Every parameter whose path holds "temporal" belongs to the turntable layers; without them
(`num_frames` 1) the network is the text-to-image model.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention, AttnProcessor
from diffusers.models.embeddings import TimestepEmbedding, get_timestep_embedding
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from model.pocket.temporal import TemporalAttention, TemporalConv, TurntableVolume
from model.views import PAPER_VIEWS

GROUPS = 16


def view_features(azimuth: Tensor, elevation: Tensor, harmonics: int = 4) -> Tensor:
    """Camera angles in radians, any shape [...], as [..., 2*harmonics+2] sines and cosines."""
    waves = [wave for k in range(1, harmonics + 1) for wave in ((k * azimuth).sin(), (k * azimuth).cos())]
    return torch.stack([*waves, elevation.sin() * 2, elevation.cos() * 2], -1)


class SpatialTransformer(nn.Module):
    """Self-attention over a frame's positions and cross-attention to the context tokens."""

    def __init__(self, channels: int, context_dim: int, head_dim: int = 32) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.block = BasicTransformerBlock(channels, channels // head_dim, head_dim, cross_attention_dim=context_dim)
        for attention in self.block.children():
            if isinstance(attention, Attention):
                attention.set_processor(AttnProcessor())  # plain products beat SDPA at 16-64 tokens on a CPU

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """Features [B*K,C,h,w] of B videos, with context tokens [B,N,D], to the same shape.

        All frames of a video ask one context: its keys and values are made once, not for every frame.
        """
        block: Any = self.block
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        tokens = tokens + block.attn1(block.norm1(tokens))
        queries = block.norm2(tokens).reshape(len(context), -1, tokens.shape[-1])
        tokens = tokens + block.attn2(queries, encoder_hidden_states=context).reshape(tokens.shape)
        tokens = tokens + block.ff(block.norm3(tokens))
        return x + tokens.transpose(1, 2).reshape(x.shape)


class Layer(nn.Module):
    """One step of the UNet: residual block, then transformer, then (in a video) the temporal layers."""

    def __init__(
        self, c_in: int, c_out: int, temb: int, context: int, grid: int, *, attend: bool, temporal: str
    ) -> None:
        super().__init__()
        self.resnet = ResnetBlock2D(
            in_channels=c_in, out_channels=c_out, temb_channels=temb, groups=GROUPS, groups_out=GROUPS
        )
        self.transformer = SpatialTransformer(c_out, context) if attend else None
        self.temporal = nn.ModuleList(_temporal_layers(temporal, c_out, grid))

    def forward(self, x: Tensor, temb: Tensor, context: Tensor, views: Views | None) -> Tensor:
        """Features [B*K,C,h,w] with time [B*K,temb] and context [B,N,D] to [B*K,C_out,h,w]; `views`: a video."""
        x = self.resnet(x, temb)
        if self.transformer is not None:
            x = self.transformer(x, context)
        if views is not None:
            for layer in self.temporal:
                x = layer(x, views)
        return x


class Views:
    """The cameras of a batch of videos: `azimuth` [B,K] relative to frame 0, `elevation` [B], radians."""

    def __init__(self, azimuth: Tensor, elevation: Tensor) -> None:
        self.azimuth, self.elevation = azimuth, elevation
        self.shape = azimuth.shape
        self.whole_turn = azimuth.shape[1] == PAPER_VIEWS


def _temporal_layers(kinds: str, channels: int, grid: int) -> list[nn.Module]:
    makers = {
        "c": lambda: TemporalConv(channels),
        "a": lambda: TemporalAttention(channels),
        "v": lambda: TurntableVolume(channels, grid),
    }
    return [makers[kind]() for kind in kinds]


class PocketUNet(ModelMixin, ConfigMixin):
    """Predicts v for latents [B*K,C,h,w] from text, camera angles and, in a video, the first frame.

    Input channels: noisy latent, image latent, image mask (1 on frame 0). Image model: the last two are 0.
    """

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 16,
        latent_size: int = 8,
        widths: tuple[int, int] = (128, 256),
        text_dim: int = 192,
        temporal: bool = False,
    ) -> None:
        super().__init__()
        low, high = widths
        temb, size, half = low * 4, latent_size, latent_size // 2
        self.conv_in = nn.Conv2d(2 * latent_channels + 1, low, 3, padding=1)
        self.time_embedding = TimestepEmbedding(low, temb)
        self.view_embedding = nn.Sequential(nn.Linear(10, temb), nn.SiLU(), nn.Linear(temb, temb))
        self.text_embedding = nn.Linear(text_dim, temb)
        conv, both = ("cv", "ca") if temporal else ("", "")
        kwargs = {"temb": temb, "context": text_dim}
        self.down_low = nn.ModuleList([
            Layer(low, low, grid=size, attend=True, temporal=conv, **kwargs),
            Layer(low, low, grid=size, attend=False, temporal="", **kwargs),
        ])  # fmt: skip
        self.downsample = nn.Conv2d(low, high, 3, stride=2, padding=1)
        self.down_high = Layer(high, high, grid=half, attend=True, temporal=both, **kwargs)
        self.middle = Layer(high, high, grid=half, attend=True, temporal=both, **kwargs)
        self.up_high = Layer(2 * high, high, grid=half, attend=True, temporal=both, **kwargs)
        self.upsample = nn.Conv2d(high, low * 4, 1)
        self.up_low = nn.ModuleList([
            Layer(2 * low, low, grid=size, attend=True, temporal=conv, **kwargs),
            Layer(2 * low, low, grid=size, attend=True, temporal="", **kwargs),
        ])  # fmt: skip
        self.norm_out = nn.GroupNorm(GROUPS, low)
        self.conv_out = nn.Conv2d(low, latent_channels, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        self.temporal_elevation = ElevationHead(latent_channels, latent_size) if temporal else None
        self.temporal_image = ImageContext(latent_channels, latent_size, temb, text_dim) if temporal else None

    def forward(
        self, latents: Tensor, timesteps: Tensor, text: Tensor, pooled: Tensor, azimuth: Tensor, elevation: Tensor,
        image: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """One evaluation.

        Args:
            latents: noisy, [B,K,C,h,w]; K = 1 in the image model.
            timesteps: [B] in [0, 1000).
            text: token states [B,L,text_dim]; `pooled`: [B,text_dim].
            azimuth: [B,K] radians, from the object's front (image model) or from frame 0 (video model).
            elevation: [B] radians.
            image: clean latent of frame 0, [B,C,h,w]; None in the image model.

        Returns:
            v prediction, [B,K,C,h,w].
        """
        batch, frames = latents.shape[:2]
        x = self._input(latents, image)
        temb = get_timestep_embedding(timesteps, self.config["widths"][0], flip_sin_to_cos=True, downscale_freq_shift=0)
        temb = self.time_embedding(temb.to(x.dtype)) + self.text_embedding(pooled)
        view = view_features(azimuth, elevation[:, None].expand_as(azimuth)).to(x.dtype)
        views = None
        if image is not None:
            views = Views(azimuth, elevation)
            summary, tokens = self.temporal_image(image)  # pyright: ignore[reportOptionalCall]
            temb, text = temb + summary, torch.cat([text, tokens], 1)
        temb = (temb[:, None] + self.view_embedding(view)).flatten(0, 1)
        x = self._body(self.conv_in(x), temb, text, views)
        return self.conv_out(nn.functional.silu(self.norm_out(x))).reshape(batch, frames, *latents.shape[2:])

    def estimate_elevation(self, image: Tensor) -> Tensor:
        """The camera's elevation [B] in radians from clean latents [B,C,h,w]; video models only."""
        if self.temporal_elevation is None:
            raise ValueError("an image model estimates no elevation; build the UNet with temporal=True")
        return self.temporal_elevation(image)

    def _input(self, latents: Tensor, image: Tensor | None) -> Tensor:
        batch, frames, _, height, width = latents.shape
        mask = latents.new_zeros(batch, frames, 1, height, width)
        if image is None:
            return torch.cat([latents, torch.zeros_like(latents), mask], 2).flatten(0, 1)
        mask[:, 0] = 1
        clean = torch.cat([image[:, None], latents[:, 1:]], 1)
        return torch.cat([clean, image[:, None].expand_as(latents), mask], 2).flatten(0, 1)

    def _body(self, x: Tensor, temb: Tensor, context: Tensor, views: Views | None) -> Tensor:
        skips = [x]
        for layer in self.down_low:
            x = layer(x, temb, context, views)
            skips.append(x)
        x = h = self.down_high(self.downsample(x), temb, context, views)
        x = self.middle(x, temb, context, views)
        x = self.up_high(torch.cat([x, h], 1), temb, context, views)
        x = nn.functional.pixel_shuffle(self.upsample(x), 2)
        for layer in self.up_low:
            x = layer(torch.cat([x, skips.pop()], 1), temb, context, views)
        return x


class ImageContext(nn.Module):
    """What every frame gets of frame 0, [B,C,h,w]: a summary [B,temb] and tokens [B,h*w,context]."""

    def __init__(self, channels: int, size: int, temb: int, context: int) -> None:
        super().__init__()
        self.summary = nn.Sequential(
            nn.Flatten(), nn.Linear(channels * size**2, temb), nn.SiLU(), nn.Linear(temb, temb)
        )
        self.tokens = nn.Linear(channels, context)
        self.places = nn.Parameter(0.3 * torch.randn(size**2, context))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The summary and the tokens of frames 0."""
        return self.summary(image), self.tokens(image.flatten(2).transpose(1, 2)) + self.places


class ElevationHead(nn.Module):
    """The camera's elevation from one clean latent [B,C,h,w], in radians: [B]."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(channels, 64, 3, padding=1), nn.SiLU(), nn.Conv2d(64, 64, 3, stride=2, padding=1), nn.SiLU(),
            nn.Flatten(), nn.Linear(64 * (size // 2) ** 2, 128), nn.SiLU(), nn.Linear(128, 1),
        )  # fmt: skip

    def forward(self, image: Tensor) -> Tensor:
        """The elevations of latents."""
        return math.pi / 8 + self.net(image)[:, 0]
