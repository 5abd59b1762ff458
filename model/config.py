"""What a user can set about the 2D generators. Imports nothing heavy, so that a command line answers at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "float16", "bfloat16"]

SDXL = "stabilityai/stable-diffusion-xl-base-1.0"
I2VGEN_XL = "ali-vilab/i2vgen-xl"
STABLE_VIDEO = "stabilityai/stable-video-diffusion-img2vid"


def _check_sampling(owner: str, model: str, steps: int, guidance_scale: float) -> None:
    if not model:
        raise ValueError(f"{owner}.model is empty; give 'pocket', a folder, an s3:// address or a hub id")
    if not 1 <= steps <= 1000:
        raise ValueError(f"{owner}.steps is {steps}; it must lie in [1, 1000]")
    if not 0 <= guidance_scale <= 50:
        raise ValueError(f"{owner}.guidance_scale is {guidance_scale}; it must lie in [0, 50]")


@dataclass(kw_only=True, slots=True)
class ImageConfig:
    """Text to reference image."""

    model: str = "pocket"
    """'pocket', a folder (ours or diffusers'), an s3:// address, or a hub id of a text-to-image pipeline."""
    revision: str | None = None
    """Branch, tag or commit for a hub id; the commit that was used is recorded with every asset."""
    steps: int = 25
    """Sampler steps, in [1, 1000]."""
    guidance_scale: float = 5.0
    """Classifier-free guidance, in [0, 50]; up to 1 means none, which halves the forwards."""
    size: int | None = None
    """Side of the image in pixels; None keeps the model's own. The model samples at its own size in any case."""
    template: str = "{prompt}"
    """Text around the prompt, for generators that were not fine-tuned on single objects on white."""
    device: Device = "auto"
    """'auto' takes CUDA where there is any."""
    dtype: Precision = "auto"
    """'auto' is float16 on CUDA and float32 on the CPU."""

    def __post_init__(self) -> None:
        _check_sampling("image", self.model, self.steps, self.guidance_scale)
        if self.size is not None and not 8 <= self.size <= 4096:
            raise ValueError(f"image.size is {self.size}; it must lie in [8, 4096] pixels")
        if "{prompt}" not in self.template:
            raise ValueError(f"image.template is {self.template!r}; it must contain {{prompt}}")


@dataclass(kw_only=True, slots=True)
class VideoConfig:
    """Image and text to a turntable of 16 frames, and its refinement from partial noise."""

    model: str = "pocket"
    """'pocket', a folder (ours or diffusers'), an s3:// address, or a hub id of I2VGen-XL or Stable Video Diffusion."""
    revision: str | None = None
    """Branch, tag or commit for a hub id; the commit that was used is recorded with every asset."""
    steps: int = 20
    """Sampler steps from pure noise, in [1, 1000]."""
    guidance_scale: float = 3.0
    """Classifier-free guidance, in [0, 50]; up to 1 means none, which halves the forwards."""
    refine_steps: int = 10
    """Sampler steps of one refinement (3.4, A.1: 10)."""
    refine_strength: float | None = None
    """Share of the noise schedule that a refinement runs through, in (0, 1]: 1 forgets the render. None takes the
    family's own, about as much noise as signal: 0.5 for pocket and I2VGen-XL, 0.29 for Stable Video Diffusion."""
    device: Device = "auto"
    """'auto' takes CUDA where there is any."""
    dtype: Precision = "auto"
    """'auto' is float16 on CUDA and float32 on the CPU."""

    def __post_init__(self) -> None:
        _check_sampling("video", self.model, self.steps, self.guidance_scale)
        if not 1 <= self.refine_steps <= 1000:
            raise ValueError(f"video.refine_steps is {self.refine_steps}; it must lie in [1, 1000]")
        if self.refine_strength is not None and not 0 < self.refine_strength <= 1:
            raise ValueError(f"video.refine_strength is {self.refine_strength}; it must lie in (0, 1]")


@dataclass(kw_only=True, slots=True)
class TrainConfig:
    """One run. Everything is scheduled by step, so that a slow machine trains the same model."""

    num_steps: int = 10_000
    """Optimiser steps in all, including those of earlier calls that this one resumes."""
    learning_rate: float = 1e-3
    warmup_steps: int = 200
    decay_share: float = 0.3
    """Share of the steps, at the end, over which the rate falls linearly to zero."""
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    ema_decay: float = 0.999
    from_weights: bool = False
    """Start a new run from the target's own weights instead of fresh ones."""
    seed: int = 0
    save_every: int = 500
    log_every: int = 50

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"num_steps is {self.num_steps}; it must be at least 1")
        if not 0 <= self.decay_share <= 1:
            raise ValueError(f"decay_share is {self.decay_share}; it must lie in [0, 1]")
