"""Encode RGBA of 128 px by convolutions to 16 x 16 x 8 numbers, kept as 8 x 8 places of 32: `ConvAutoencoder`."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from model.pocket.autoencoder import FrameCodec
from model.training import autocast
from model.weights import PATCH

NUM_PIXEL_VALUES = 4 * PATCH * PATCH
"""Numbers in one place's patch of RGBA pixels."""


class Residual(nn.Module):
    """Two 3x3 convolutions beside the identity, without normalisation; it begins as the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tensor) -> Tensor:
        """Features [B,C,h,w] to the same shape."""
        return x + self.second(nn.functional.silu(self.first(nn.functional.silu(x))))


class Encoder(nn.Module):
    """RGBA [B,4,S,S] to latents [B,C,S/16,S/16]: convolutions to tokens, then the fixed linear map `mix` of each."""

    def __init__(self, latent_channels: int, widths: tuple[int, int], depth: int) -> None:
        super().__init__()
        fine, coarse = widths
        self.tokens = nn.Sequential(
            nn.PixelUnshuffle(4), nn.Conv2d(4 * 16, fine, 3, padding=1), *(Residual(fine) for _ in range(depth)),
            nn.PixelUnshuffle(2), nn.Conv2d(4 * fine, coarse, 1), *(Residual(coarse) for _ in range(depth)),
            nn.SiLU(), nn.Conv2d(coarse, latent_channels // 4, 3, padding=1), nn.PixelUnshuffle(2),
        )  # fmt: skip
        self.mix = identity_map(latent_channels)

    def forward(self, x: Tensor) -> Tensor:
        """The latents of images."""
        return self.mix(self.tokens(x))


class Decoder(nn.Module):
    """Latents [B,C,h,w] to RGBA [B,4,16h,16w]: the fixed linear map `unmix` to tokens, then convolutions."""

    def __init__(self, latent_channels: int, widths: tuple[int, int, int], depth: int) -> None:
        super().__init__()
        coarse, middle, fine = widths
        self.unmix = identity_map(latent_channels)
        self.pixels = nn.Sequential(
            nn.PixelShuffle(2), nn.Conv2d(latent_channels // 4, coarse, 3, padding=1),
            *(Residual(coarse) for _ in range(depth)),
            nn.Conv2d(coarse, 4 * middle, 1), nn.PixelShuffle(2), *(Residual(middle) for _ in range(depth)),
            nn.Conv2d(middle, 4 * fine, 1), nn.PixelShuffle(2), Residual(fine),
            nn.SiLU(), nn.Conv2d(fine, 4 * 4, 3, padding=1), nn.PixelShuffle(2),
        )  # fmt: skip

    def forward(self, latents: Tensor) -> Tensor:
        """The images of latents."""
        return self.pixels(self.unmix(latents))


def identity_map(channels: int) -> nn.Conv2d:
    """A linear map of every place's channels, at first the identity; set in closed form, never trained."""
    layer = nn.Conv2d(channels, channels, 1)
    nn.init.dirac_(layer.weight)
    nn.init.zeros_(layer.bias)  # pyright: ignore[reportArgumentType]
    return layer.requires_grad_(False)


class ConvAutoencoder(FrameCodec, ModelMixin, ConfigMixin):
    """RGBA [B,4,S,S] in [-1,1] to latents [B,C,S/16,S/16] of about unit scale, and back.

    Four neighbouring places of the 16 x 16 x 8 bottleneck are one latent of 32 channels, ordered by how much each moves
    the pixels and scaled half-way to white (`calibrate`): to a diffusion model white noise would be a picture like any
    other, and no noise level would show the coarse shape first.
    """

    @register_to_config
    def __init__(
        self,
        latent_channels: int = 32,
        encoder_widths: tuple[int, int] = (128, 256),
        decoder_widths: tuple[int, int, int] = (256, 128, 32),
        encoder_depth: int = 2,
        decoder_depth: int = 3,
    ) -> None:
        super().__init__()
        if latent_channels % 4:
            raise ValueError(f"latent_channels is {latent_channels}; it must be a multiple of 4")
        self.encoder = Encoder(latent_channels, encoder_widths, encoder_depth)
        self.decoder = Decoder(latent_channels, decoder_widths, decoder_depth)
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def encode(self, x: Tensor) -> Tensor:
        """RGBA [B,4,S,S] in [-1,1], premultiplied, S a multiple of 16, to latents [B,C,S/16,S/16].

        In bfloat16 where the processor computes in it.
        """
        self.check_sides(x)
        with autocast(x.device, "auto"):
            tokens = self.encoder.tokens(x.contiguous(memory_format=torch.channels_last))
        return self.encoder.mix(tokens.to(self.dtype)).contiguous()

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [B,C,h,w] to RGBA [B,4,16h,16w], about [-1,1], premultiplied; bfloat16 as in `encode`."""
        tokens = self.decoder.unmix(latents).contiguous(memory_format=torch.channels_last)
        with autocast(latents.device, "auto"):
            return self.decoder.pixels(tokens).to(latents.dtype).contiguous()


@torch.no_grad()
def calibrate(
    model: ConvAutoencoder, mean: Tensor, covariance: Tensor, cross: Tensor, whitening: float = 0.5
) -> None:  # fmt: skip
    """Set `mix` and `unmix` by what a token does to the pixels of its patch, in the best linear guess of them.

    The latents are the principal components of the guessed pixels, made white and then scaled by their effect. The
    decoder gets every token channel with mean 0 and variance 1.

    Args:
        model: what is changed.
        mean: of the encoder's tokens over places, [C].
        covariance: of the same, [C,C].
        cross: covariance of a patch's pixels with its token, [1024,C].
        whitening: 0 keeps each component's effect as its scale, 1 gives every channel unit variance; the mean
            variance of the channels is 1 in any case.
    """
    covariance, cross = covariance.double(), cross.double()
    factor = torch.linalg.cholesky(covariance + 1e-6 * covariance.diagonal().mean() * torch.eye(len(mean)))
    effects = torch.linalg.solve_triangular(factor, cross.T, upper=False).T  # pixels over a white token
    _, deviations, turn = torch.linalg.svd(effects, full_matrices=False)
    scale = deviations.clamp(min=1e-6 * deviations[0].item()) ** (1 - whitening)
    scale = scale / scale.square().mean().sqrt()
    forward = scale[:, None] * torch.linalg.solve_triangular(factor.T, turn.T, upper=True).T
    backward = (factor @ turn.T) / scale / covariance.diagonal().sqrt()[:, None]
    mix, unmix = model.encoder.mix, model.decoder.unmix
    mix.weight.copy_(forward[:, :, None, None])
    mix.bias.copy_(-(forward @ mean.double()))  # pyright: ignore[reportOptionalMemberAccess]
    unmix.weight.copy_(backward[:, :, None, None])
