"""Generate RGBA views of single objects from prompts with the pocket model: `PocketImageModel`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from model import sampling
from model.batch import check_batch
from model.config import ImageConfig
from model.evaluations import counted
from model.pocket.load import Autoencoder, load_networks
from model.pocket.losses import SCHEDULE
from model.pocket.text import PocketTextEncoder
from model.pocket.unet import PocketUNet
from model.weights import PATCH

ELEVATION_RANGE = (math.radians(10), math.radians(35))


@dataclass(slots=True)
class PocketImageModel:
    """`ImageModel` of the embedded scale: 128 px, frontal views at a random elevation of 10 to 35 degrees."""

    unet: PocketUNet
    text: PocketTextEncoder
    autoencoder: Autoencoder
    config: ImageConfig
    revision: str
    license: str
    num_evaluations: dict[str, int]

    @classmethod
    def load(cls, folder: Path, config: ImageConfig) -> PocketImageModel:
        """Load `folder` (the UNet) and its siblings `text_encoder` and `autoencoder`."""
        return cls(**load_networks(folder), config=config, num_evaluations={})

    @property
    def size(self) -> int:
        """Side of its images in pixels."""
        return self.config.size or self.unet.config["latent_size"] * PATCH

    @torch.inference_mode()
    def generate(self, prompts: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
        """Images uint8 [B,S,S,4], RGB over white and coverage; see `ImageModel.generate`."""
        check_batch(prompts, seeds=seeds)
        shape = (1, self.unet.config["latent_channels"], *(self.unet.config["latent_size"],) * 2)
        states, pooled = self.text([*([""] * len(prompts)), *prompts])
        low, high = ELEVATION_RANGE
        elevation = torch.tensor([low + (high - low) * np.random.default_rng(int(s)).random() for s in seeds])
        elevation = elevation.float().repeat(2)
        azimuth = torch.zeros(len(elevation), 1)

        def predict(latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
            part = slice(len(elevation) - len(latents), None)
            return self.unet(
                latents, timestep.expand(len(latents)), states[part], pooled[part], azimuth[part], elevation[part]
            )

        scale = self.config.guidance_scale
        model_fn = sampling.guided(predict, scale) if scale > 1 else predict
        noise = sampling.seeded_noise(shape, seeds)
        with counted(self.unet, len(prompts), self.config.steps) as self.num_evaluations:
            latents = sampling.sample(model_fn, noise, sampling.dpm_solver(SCHEDULE), self.config.steps)
        return np.stack([self._resized(image) for image in self.autoencoder.decode_frames(latents[:, 0]).numpy()])

    def _resized(self, image: np.ndarray) -> np.ndarray:
        from PIL import Image

        shape = (self.size, self.size)
        if image.shape[:2] == shape:
            return image
        parts = image[..., :3], image[..., 3]  # over white: alpha must not weigh the colours
        rgb, alpha = (np.asarray(Image.fromarray(part).resize(shape, Image.Resampling.LANCZOS)) for part in parts)
        return np.concatenate([rgb, alpha[..., None]], -1)
