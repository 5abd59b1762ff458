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
    total_batch: int | None = None
    """Turntables an optimiser step, over all workers and accumulated micro-batches (paper: 240); None: the target's."""
    micro_batch: int | None = None
    """Turntables a forward pass of one worker; None: all of the worker's share at once."""
    text_dropout: float = 0.1
    """Share of the samples whose text is dropped, for guidance, in [0, 1]."""
    precision: Precision = "auto"
    """Of the forward pass; auto: bfloat16 where the device computes in it, else float32."""
    recompute: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    seed: int = 0
    save_every: int = 500
    """Steps between checkpoints, each with a validation loss."""
    keep_last: int = 2
    """Checkpoints kept beside the best one, >= 1."""
    validation_turntables: int = 64
    """Fixed turntables of the validation split that the loss is measured on; 0: no validation."""
    sheet_every: int = 1000
    """Steps between sheets of sampled turntables; one is drawn at the checkpoint that follows."""
    log_every: int = 50
    wandb: str | None = None
    """A project of Weights & Biases that gets what TensorBoard gets; needs the package wandb and its login."""

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"num_steps is {self.num_steps}; it must be at least 1")
        for name in ("learning_rate", "max_grad_norm"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}; it must be positive and finite")
        for name in ("warmup_steps", "weight_decay", "seed"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay is {self.ema_decay}; it must lie in [0, 1)")
        if not (0 <= self.betas[0] < 1 and 0 <= self.betas[1] < 1):
            raise ValueError(f"betas are {self.betas}; both must lie in [0, 1)")
        if not 0 <= self.decay_share <= 1:
            raise ValueError(f"decay_share is {self.decay_share}; it must lie in [0, 1]")
        if not 0 <= self.text_dropout <= 1:
            raise ValueError(f"text_dropout is {self.text_dropout}; it must lie in [0, 1]")
        positive = ("save_every", "keep_last", "sheet_every", "log_every")
        for name in (*positive, "total_batch", "micro_batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if self.validation_turntables < 0:
            raise ValueError(f"validation_turntables is {self.validation_turntables}; it must be at least 0")


Views = Literal["all", "front", "any", "some", "quarters"]


@dataclass(kw_only=True, slots=True, frozen=True)
class Drawing:
    """What a target sees of a turntable, and of how many in a step."""

    batch: int
    """Turntables a step."""
    views: Views = "all"
    """All frames, the front alone, any one, frame 0 and `count` - 1 others, or four a quarter turn apart."""
    count: int = 16
    """Frames of a drawn turntable."""
    roll_share: float = 0.0
    """Share of the turntables that start at a random view instead of the front."""
    one_a_noun: bool = False
    """Only one asset for every last word of the captions: a world of distinct kinds."""

    @property
    def least(self) -> int:
        """Frames that a turntable must have; where all are taken, it must not have more."""
        return 1 if self.views in ("front", "any") else self.count


@dataclass(kw_only=True, slots=True, frozen=True)
class Share:
    """How a step's turntables are divided: over workers, then into micro-batches."""

    total: int
    micro: int
    rounds: int

    @classmethod
    def of(cls, config: TrainConfig, batch: int, workers: int) -> Share:
        """The division of a step of `config.total_batch`, else `batch`, turntables.

        Raises:
            ValueError: when it does not come out even.
        """
        total = config.total_batch or batch
        if total % workers:
            raise ValueError(f"{total} turntables a step cannot be shared by {workers} workers; "
                             f"set train.total-batch to a multiple of {workers}")  # fmt: skip
        mine = total // workers
        micro = config.micro_batch or mine
        if mine % micro:
            raise ValueError(f"{mine} turntables a step and worker are no multiple of train.micro-batch {micro}")
        return cls(total=total, micro=micro, rounds=mine // micro)
