"""Generate 16 views around an object from one RGBA view and its prompt: `PocketVideoModel`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model import sampling
from model.batch import check_batch
from model.config import VideoConfig
from model.evaluations import counted
from model.pocket.load import Autoencoder, load_networks
from model.pocket.losses import SCHEDULE
from model.pocket.text import PocketTextEncoder
from model.pocket.unet import PocketUNet
from model.views import PAPER_VIEWS, ViewPlan, uniform_views
from model.weights import PATCH

REFINE_STRENGTH = 0.5


@dataclass(slots=True)
class PocketVideoModel:
    """`VideoModel` of the embedded scale: 16 frames of 128 px, frame 0 the given image."""

    unet: PocketUNet
    text: PocketTextEncoder
    autoencoder: Autoencoder
    config: VideoConfig
    revision: str
    license: str
    num_evaluations: dict[str, int]

    @classmethod
    def load(cls, folder: Path, config: VideoConfig) -> PocketVideoModel:
        """Load `folder` (the UNet) and its siblings `text_encoder` and `autoencoder`."""
        return cls(**load_networks(folder), config=config, num_evaluations={})

    @property
    def views(self) -> ViewPlan:
        """16 even steps."""
        return uniform_views(PAPER_VIEWS)

    @torch.inference_mode()
    def generate(self, images: np.ndarray, prompts: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
        """Frames uint8 [B,16,S,S,4], RGB over white and coverage; see `VideoModel.generate`."""
        check_batch(prompts, images=images, seeds=seeds)
        first = self._encode(images)
        noise = sampling.seeded_noise((PAPER_VIEWS, *first.shape[1:]), seeds)
        model_fn = self._condition(first, prompts)
        with counted(self.unet, len(prompts), self.config.steps) as self.num_evaluations:
            latents = sampling.sample(model_fn, noise, sampling.dpm_solver(SCHEDULE), self.config.steps)
        return self._decode(latents, images)

    @torch.inference_mode()
    def refine(
        self, frames: np.ndarray, images: np.ndarray, prompts: Sequence[str], seeds: Sequence[int]
    ) -> np.ndarray:
        """Frames uint8 [B,16,S,S,4] noised part of the way and denoised again; see `VideoModel.refine`.

        What the autoencoder cannot hold of the given frames (over a decibel) is added to the result, or every
        refinement would pay for it.
        """
        check_batch(prompts, frames=frames, images=images, seeds=seeds)
        first, clean = self._encode(images), self._encode(frames)
        noise = sampling.seeded_noise(clean.shape[1:], seeds)
        model_fn = self._condition(first, prompts)
        strength, steps = self.config.refine_strength or REFINE_STRENGTH, self.config.refine_steps
        with counted(self.unet, len(prompts), steps) as self.num_evaluations:
            latents = sampling.restart(model_fn, clean, noise, sampling.dpm_solver(SCHEDULE), steps, strength)
        lost = frames.astype(np.int16) - self.autoencoder.decode_frames(clean).numpy()
        refined = (self.autoencoder.decode_frames(latents).numpy() + lost).clip(0, 255).astype(np.uint8)
        refined[:, 0] = images
        return refined

    def _encode(self, images: np.ndarray) -> Tensor:
        size = self.unet.config["latent_size"] * PATCH
        if images.dtype != np.uint8 or images.shape[-3:] != (size, size, 4):
            raise ValueError(
                f"images are {images.dtype} {images.shape}; the pocket model takes uint8 [...,{size},{size},4]: "
                "RGB over white, and coverage"
            )
        return self.autoencoder.encode_frames(torch.from_numpy(np.ascontiguousarray(images)))

    def _condition(self, first: Tensor, prompts: Sequence[str]) -> sampling.ModelFn:
        states, pooled = self.text([*([""] * len(prompts)), *prompts])
        turn = torch.arange(PAPER_VIEWS) * (2 * math.pi / PAPER_VIEWS)
        azimuth = turn.expand(2 * len(prompts), PAPER_VIEWS)
        image = first.repeat(2, 1, 1, 1)
        elevation = self.unet.estimate_elevation(image).clamp(0, math.pi / 4)

        def predict(latents: Tensor, timestep: Tensor) -> Tensor:
            part = slice(len(image) - len(latents), None)
            return self.unet(
                latents, timestep.expand(len(latents)), states[part], pooled[part], azimuth[part], elevation[part],
                image[part],
            )  # fmt: skip

        scale = self.config.guidance_scale or 1.0
        return sampling.guided(predict, scale) if scale > 1 else predict

    def _decode(self, latents: Tensor, images: np.ndarray) -> np.ndarray:
        frames = self.autoencoder.decode_frames(latents).numpy()
        frames[:, 0] = images
        return frames
