"""Stable Video Diffusion as a turntable model: its networks from a diffusers folder, under our own sampling loop.

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
from model.config import VideoConfig
from model.latent_video import NUM_FRAMES, LatentVideoModel, clip_pixels

FRAMES_PER_SECOND, MOTION = 7, 127


class StableVideoModel(LatentVideoModel):
    """Image to 16 frames; EDM noise levels from 0.002 to 700, v-prediction."""

    default_strength = 0.29
    noise_augmentation = 0.02
    """Standard deviation of the noise on the image before it is encoded, pixels in [-1, 1]."""

    @classmethod
    def load(cls, folder: Path, config: VideoConfig) -> StableVideoModel:
        """Load the networks of a `StableVideoDiffusionPipeline` folder, safetensors only.

        Raises:
            ValueError: if a part of the folder is missing.
        """
        revision, device = weights.revision_of(folder), weights.device_of(config.device)
        dtype = weights.dtype_of(config.dtype, device)
        from recon.torchvision_shim import import_torchvision

        import_torchvision()
        from diffusers.models.autoencoders.autoencoder_kl_temporal_decoder import AutoencoderKLTemporalDecoder
        from diffusers.models.unets.unet_spatio_temporal_condition import UNetSpatioTemporalConditionModel
        from transformers import CLIPVisionModelWithProjection

        parts = {
            "unet": UNetSpatioTemporalConditionModel,
            "vae": AutoencoderKLTemporalDecoder,
            "image_encoder": CLIPVisionModelWithProjection,
        }
        modules: dict[str, Any] = weights.load_parts(folder, parts, device, dtype)
        modules["feature_extractor"] = weights.read_json(folder / "feature_extractor" / "preprocessor_config.json")
        return cls(modules, config, revision, weights.license_of(folder))

    def scheduler(self) -> sampling.Scheduler:
        """DPM-Solver++ in EDM's parametrisation."""
        return sampling.edm_solver()

    def condition(self, images: Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> sampling.ModelFn:
        """The denoiser of [B,16,C,h,w]; guidance grows linearly from 1 at frame 0 to the configured scale."""
        del prompts
        scale = self.config.guidance_scale
        image, latents = self.conditions(images, seeds)
        if scale > 1:
            image = torch.cat([torch.zeros_like(image), image])
            latents = torch.cat([torch.zeros_like(latents), latents])
        predict = self.denoiser(image, latents)
        if scale <= 1:
            return predict
        return sampling.guided(predict, torch.linspace(1, scale, NUM_FRAMES, device=images.device).view(1, -1, 1, 1, 1))

    def conditions(self, images: Tensor, seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Image embedding [B,1,D] and image latents [B,16,C,h,w] of images [B,3,H,W] in [-1, 1]."""
        return self._image(images), self._image_latents(images, seeds)

    def denoiser(self, image: Tensor, latents: Tensor) -> sampling.ModelFn:
        """The network under these conditions."""
        dtype = self.unet.dtype
        numbers = torch.tensor([[FRAMES_PER_SECOND - 1, MOTION, self.noise_augmentation]], device=self.unet.device)
        time_ids = numbers.expand(len(image), -1).to(dtype)

        def predict(noisy: Tensor, timestep: Tensor) -> Tensor:
            stacked = torch.cat([noisy, latents], 2).to(dtype)
            return self.unet(stacked, timestep, image.to(dtype), added_time_ids=time_ids, return_dict=False)[0].float()

        return predict

    def decode(self, latents: Tensor) -> Tensor:
        """All 16 frames at once: the decoder itself is temporal."""
        return self.vae.decode(latents.to(self.vae.dtype), num_frames=len(latents)).sample

    def _image(self, images: Tensor) -> Tensor:
        """CLIP's embedding [B,1,D] of images in [-1, 1]."""
        encoder = self.modules["image_encoder"]
        pixels = clip_pixels(images, self.modules["feature_extractor"], "bicubic")
        return encoder(pixels.to(encoder.dtype)).image_embeds[:, None]

    def _image_latents(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        """Latents of the slightly noised image, unscaled as in training, for every frame: [B,16,C,h,w]."""
        noise = sampling.seeded_noise(images.shape[1:], [int(seed) + 1 for seed in seeds], images.device)
        latents = self._encode(images + self.noise_augmentation * noise)
        return latents[:, None].expand(-1, NUM_FRAMES, -1, -1, -1)
