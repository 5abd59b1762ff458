"""Generate 21 frames of one full turn with SV3D (Voleti et al. 2024) on Stable Video Diffusion: `SV3DModel`.

The network's last frame is the picture's view; here it is frame 0, so videos are rolled by one on the way in and out.
SV3D_u keeps the picture's elevation, unknown; SV3D_p takes elevation and azimuth of every frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.models.embeddings import get_timestep_embedding
from torch import Tensor, nn

from model.latent_video import Conditioned
from model.stable_video import StableVideoModel


class SV3DModel(StableVideoModel):
    """Image to 21 frames of a full turn; EDM noise levels, v-prediction, no text."""

    decode_chunk = 1
    shows_image = True
    noise_augmentation = 1e-5

    def __init__(self, *args: Any, **rest: Any) -> None:
        super().__init__(*args, **rest)
        network: Any = self.parts.networks["unet"]
        posed = network.config.projection_class_embeddings_input_dim > network.config.addition_time_embed_dim
        self.frame_vectors = FrameVectors(network, len(self.views)) if posed else None

    @classmethod
    def classes(cls, folder: Path) -> dict[str, Any]:
        """See `LatentVideoModel.classes`; the decoder knows single images only."""
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

        return super().classes(folder) | {"vae": AutoencoderKL}

    def guidance_scales(self) -> Tensor:
        """The guidance of each native frame [F]: a triangle, 1 at both ends and the scale in the middle."""
        middle = (len(self.views) - 1) / 2
        return 1 + (self.guidance - 1) * (1 - (torch.arange(len(self.views)) - middle).abs() / middle)

    def condition(self, images: Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> Conditioned:
        """See `LatentVideoModel.condition`."""
        made = super().condition(images, prompts, seeds)

        def predict(noisy: Tensor, timestep: Tensor) -> Tensor:
            return made.predict(noisy.roll(-1, 1), timestep).roll(1, 1)

        return Conditioned(predict=predict)

    def added_numbers(self, batch: int) -> Tensor:
        """Noise on the image [batch,1] for SV3D_u; the sinusoids of every frame's pose go in apart for SV3D_p."""
        if self.frame_vectors is None:
            return torch.full((batch, 1), self.noise_augmentation, device=self.device, dtype=self.dtype)
        self.frame_vectors.show(self._pose_vectors().to(self.device, self.dtype), batch)
        config: Any = self.parts.networks["unet"].config
        count = config.projection_class_embeddings_input_dim // config.addition_time_embed_dim
        return torch.zeros(batch, count, device=self.device, dtype=self.dtype)

    def decode_frames(self, vae: Any, latents: Tensor) -> Tensor:
        """See `FramewiseVideoModel.decode_frames`."""
        return vae.decode(latents).sample

    def _pose_vectors(self) -> Tensor:
        """Noise, polar angle and azimuth of every native frame as sinusoids [F,D+2D+2D]; angles in radians."""
        width: int = self.parts.networks["unet"].config.addition_time_embed_dim  # pyright: ignore
        elevation = self.views.elevation
        assert elevation is not None, "the plan of a posed model has one"
        azimuths = torch.tensor([*self.views.azimuths[1:], 0.0])
        polar = torch.full_like(azimuths, math.pi / 2 - elevation)
        noise = torch.full_like(azimuths, self.noise_augmentation)
        widths = ((noise, width), (polar, 2 * width), (azimuths, 2 * width))
        return torch.cat([sinusoid(values, size) for values, size in widths], 1)


def sinusoid(values: Tensor, width: int) -> Tensor:
    """cos, then sin of values [N] at `width` / 2 frequencies 10000^(-2i / width): [N,width]."""
    return get_timestep_embedding(values, width, flip_sin_to_cos=True, downscale_freq_shift=0)


class FrameVectors:
    """Gives every frame its own vector, where the network's forward adds one and the same to all frames.

    The vectors pass through the network's own `add_embedding`; the sum with the embedding of the timestep takes the
    place of what the residual blocks get.

    Args:
        network: a `UNetSpatioTemporalConditionModel`.
        num_frames: frames a sample.
    """

    def __init__(self, network: Any, num_frames: int) -> None:
        from diffusers.models.resnet import SpatioTemporalResBlock

        self.num_frames = num_frames
        self.vectors = self._timesteps = self._added = torch.empty(0)
        network.time_embedding.register_forward_hook(self._keep_timesteps)
        network.add_embedding.register_forward_pre_hook(self._put_vectors)
        network.add_embedding.register_forward_hook(self._keep_added)
        self.blocks = [module for module in network.modules() if isinstance(module, SpatioTemporalResBlock)]
        for block in self.blocks:
            block.register_forward_pre_hook(self._put_sums, with_kwargs=True)

    def show(self, vectors: Tensor, batch: int) -> None:
        """Take vectors [F,D] for each of `batch` samples in the forwards from now on."""
        self.vectors = vectors.repeat(batch, 1)

    def _keep_timesteps(self, _module: nn.Module, _args: Any, output: Tensor) -> None:
        self._timesteps = output.repeat_interleave(self.num_frames, 0)

    def _put_vectors(self, _module: nn.Module, _args: Any) -> tuple[Tensor]:
        return (self.vectors,)

    def _keep_added(self, _module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        self._added = output
        return output[:: self.num_frames]

    def _put_sums(self, _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        total = self._timesteps + self._added
        return (args, kwargs | {"temb": total}) if "temb" in kwargs else ((args[0], total, *args[2:]), kwargs)
