"""What the latent video adapters share: pixels to latents and back, and the two ways of sampling."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from model import sampling
from model.config import VideoConfig
from model.evaluations import counted
from model.image import check_batch

NUM_FRAMES = 16


class LatentVideoModel(ABC):
    """`VideoModel` over a UNet, a VAE and a solver; a family fills in its conditions.

    Latents are [B,16,C,h,w] float32 whatever order of axes the family's network takes.
    """

    default_strength: float
    """Restart at about as much noise as signal, on this family's schedule."""

    def __init__(self, modules: dict[str, Any], config: VideoConfig, revision: str, license: str) -> None:
        self.unet, self.vae, self.modules = modules["unet"], modules["vae"], modules
        self.config, self.revision, self.license = config, revision, license
        self.num_evaluations: dict[str, int] = {}

    @abstractmethod
    def scheduler(self) -> sampling.Scheduler:
        """A fresh solver for one batch."""

    @abstractmethod
    def condition(self, images: Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> sampling.ModelFn:
        """The denoiser for `images` [B,3,H,W] in [-1, 1], guidance included."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """One sample's latents [16,C,h,w] to pixels [16,3,H,W] in [-1, 1]."""

    @torch.inference_mode()
    def generate(self, images: np.ndarray, prompts: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
        """Frames uint8 [B,16,H,W,3]; see `VideoModel.generate`. An alpha channel of the images is dropped."""
        check_batch(prompts, images=images, seeds=seeds)
        model_fn = self.condition(self._pixels(images), prompts, seeds)
        noise = sampling.seeded_noise(self._latent_shape(images), seeds, self.unet.device)
        with counted(self.unet, len(prompts), self.config.steps) as self.num_evaluations:
            return self._frames(sampling.sample(model_fn, noise, self.scheduler(), self.config.steps))

    @torch.inference_mode()
    def refine(
        self, frames: np.ndarray, images: np.ndarray, prompts: Sequence[str], seeds: Sequence[int]
    ) -> np.ndarray:
        """Frames uint8 [B,16,H,W,3]; see `VideoModel.refine`. An alpha channel is dropped: frames are over white."""
        check_batch(prompts, frames=frames, images=images, seeds=seeds)
        if frames.shape[1] != NUM_FRAMES or frames.shape[2:4] != images.shape[1:3]:
            raise ValueError(f"frames are {frames.shape}, images {images.shape}; "
                             f"expected {NUM_FRAMES} frames of the images' size")  # fmt: skip
        model_fn = self.condition(self._pixels(images), prompts, seeds)
        clean = torch.stack([self._encode(self._pixels(video)) * self.vae.config.scaling_factor for video in frames])
        noise = sampling.seeded_noise(clean.shape[1:], seeds, self.unet.device)
        strength = self.config.refine_strength or self.default_strength
        steps = self.config.refine_steps
        with counted(self.unet, len(prompts), steps) as self.num_evaluations:
            return self._frames(sampling.restart(model_fn, clean, noise, self.scheduler(), steps, strength))

    def _latent_shape(self, images: np.ndarray) -> tuple[int, int, int, int]:
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        height, width = images.shape[1:3]
        if height != width or height % factor:
            raise ValueError(f"images are {height}x{width} pixels; they must be square, a multiple of {factor} a side")
        return (NUM_FRAMES, self.vae.config.latent_channels, height // factor, width // factor)

    def _pixels(self, images: np.ndarray) -> Tensor:
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (3, 4):
            raise ValueError(f"images are {images.dtype} {images.shape}; expected uint8 [B,H,W,3|4]")
        rgb = torch.from_numpy(np.ascontiguousarray(images[..., :3])).to(self.unet.device)
        return rgb.permute(0, 3, 1, 2).float() / 127.5 - 1

    def _encode(self, pixels: Tensor) -> Tensor:
        """The VAE's mode [N,C,h,w] float32 of pixels [N,3,H,W], unscaled, one image at a time."""
        rows = [self.vae.encode(row[None].to(self.vae.dtype)).latent_dist.mode() for row in pixels]
        return torch.cat(rows).float()

    def _frames(self, latents: Tensor) -> np.ndarray:
        videos = [self.decode(video / self.vae.config.scaling_factor) for video in latents]
        pixels = (torch.stack(videos).float().clamp(-1, 1) + 1) * 127.5
        return pixels.round().byte().permute(0, 1, 3, 4, 2).cpu().numpy()


def clip_pixels(images: Tensor, feature_extractor: dict[str, Any], mode: str) -> Tensor:
    """Images [B,3,H,W] in [-1, 1], resized and normalised as `feature_extractor` (its json) tells for CLIP."""
    crop = feature_extractor["crop_size"]
    size = (crop["height"], crop["width"]) if isinstance(crop, dict) else (crop, crop)
    resized = functional.interpolate(images, size, mode=mode, antialias=True, align_corners=False)
    mean, std = (images.new_tensor(feature_extractor[key]).view(1, 3, 1, 1) for key in ("image_mean", "image_std"))
    return ((resized + 1) / 2 - mean) / std
