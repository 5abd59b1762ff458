"""Generate turntables with Stable Video Diffusion's networks under our own sampling loop: `StableVideoModel`.

Blattmann et al. 2023: the noisy latents beside the image's latents, the image through CLIP, and three
numbers (frames per second - 1, motion, noise on the image). It takes no text: prompts are unused.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model import sampling, weights
from model.clip_pixels import clip_pixels
from model.image_vae import FramewiseVideoModel
from model.latent_video import Conditioned

FRAMES_PER_SECOND, MOTION = 7, 127


class StableVideoModel(FramewiseVideoModel):
    """Image to a turntable; EDM noise levels from 0.002 to 700, v-prediction."""

    decode_chunk = 8
    noise_augmentation = 0.02
    """Standard deviation of the noise on the image before it is encoded, pixels in [-1, 1]."""

    @classmethod
    def classes(cls, folder: Path) -> dict[str, Any]:
        """See `LatentVideoModel.classes`."""
        from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder
        from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel
        from transformers import CLIPVisionModelWithProjection

        return {
            "unet": UNetSpatioTemporalConditionModel,
            "vae": AutoencoderKLTemporalDecoder,
            "image_encoder": CLIPVisionModelWithProjection,
        }

    @classmethod
    def read_files(cls, folder: Path) -> dict[str, Any]:
        """See `LatentVideoModel.read_files`."""
        return {"feature_extractor": weights.read_json(folder / "feature_extractor" / "preprocessor_config.json")}

    def scheduler(self) -> sampling.Scheduler:
        """DPM-Solver++ in EDM's parametrisation."""
        return sampling.edm_solver()

    def guidance_scales(self) -> Tensor:
        """The guidance of each frame [F]: from 1 at frame 0 linearly up to the scale."""
        return torch.linspace(1, self.guidance, len(self.views))

    def condition(self, images: Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> Conditioned:
        """See `LatentVideoModel.condition`."""
        del prompts
        image, latents = self.conditions(images, seeds)
        if self.guidance <= 1:
            return Conditioned(predict=self.denoiser(image, latents))
        image = torch.cat([torch.zeros_like(image), image])
        latents = torch.cat([torch.zeros_like(latents), latents])
        scales = self.guidance_scales().to(images.device).view(1, -1, 1, 1, 1)
        return Conditioned(predict=sampling.guided(self.denoiser(image, latents), scales))

    def conditions(self, images: Tensor, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Image embedding [B,1,D] and image latents [B,F,C,h,w] of images [B,3,H,W] in [-1, 1]."""
        return self._image(images), self._image_latents(images, seeds)

    def denoiser(self, image: Tensor, latents: Tensor) -> sampling.ModelFn:
        """The network under these conditions."""
        dtype, numbers = self.dtype, self.added_numbers(len(image))

        def predict(noisy: Tensor, timestep: Tensor) -> Tensor:
            stacked = torch.cat([noisy, latents], 2).to(dtype)
            network = self.network
            return network(stacked, timestep, image.to(dtype), added_time_ids=numbers, return_dict=False)[0].float()

        return predict

    def added_numbers(self, batch: int) -> Tensor:
        """The numbers [batch,N] that the network takes beside the timestep."""
        numbers = [FRAMES_PER_SECOND - 1, MOTION, self.noise_augmentation]
        return torch.tensor([numbers], device=self.device).expand(batch, -1).to(self.dtype)

    def decode_frames(self, vae: Any, latents: Tensor) -> Tensor:
        """Several frames at once: the decoder itself is temporal."""
        return vae.decode(latents, num_frames=len(latents)).sample

    def _image(self, images: Tensor) -> Tensor:
        """CLIP's embedding [B,1,D] of images in [-1, 1]."""
        encoder = self.parts.use("image_encoder")
        pixels = clip_pixels(images, self.files["feature_extractor"], "bicubic")
        return encoder(pixels.to(encoder.dtype)).image_embeds[:, None]

    def _image_latents(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        """Latents of the slightly noised image, unscaled as in training, for every frame: [B,F,C,h,w]."""
        noise = sampling.seeded_noise(images.shape[1:], [int(seed) + 1 for seed in seeds], images.device)
        latents = self.image_latents(images + self.noise_augmentation * noise)
        return latents[:, None].expand(-1, len(self.views), -1, -1, -1)
