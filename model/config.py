"""Set the 2D generators and their training: `ImageConfig`, `VideoConfig`, `TrainConfig`. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from model.views import PAPER_VIEWS
from recon.user_error import UserError

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "float16", "bfloat16"]

SDXL = "stabilityai/stable-diffusion-xl-base-1.0"
I2VGEN_XL = "ali-vilab/i2vgen-xl"
STABLE_VIDEO = "stabilityai/stable-video-diffusion-img2vid"


Offload = Literal["none", "parts", "layers"]
Storage = Literal["same", "float8"]
Direction = Literal["auto", "ccw", "cw"]


def _check_sampling(owner: str, model: str, steps: int, guidance_scale: float | None) -> None:
    if not model:
        raise UserError(f"{owner}.model is empty; give 'pocket', a folder, an s3:// address or a hub id")
    if not 1 <= steps <= 1000:
        raise UserError(f"{owner}.steps is {steps}; it must lie in [1, 1000]")
    if guidance_scale is not None and not 0 <= guidance_scale <= 50:
        raise UserError(f"{owner}.guidance_scale is {guidance_scale}; it must lie in [0, 50]")


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
            raise UserError(f"image.size is {self.size}; it must lie in [8, 4096] pixels")
        if "{prompt}" not in self.template:
            raise UserError(f"image.template is {self.template!r}; it must contain {{prompt}}")


@dataclass(kw_only=True, slots=True)
class VideoConfig:
    """Image and text to a turntable, and its refinement from partial noise."""

    model: str = "pocket"
    """'pocket', a folder (ours or diffusers'), an s3:// address, or a hub id of I2VGen-XL, Stable Video Diffusion,
    SV3D, Wan image-to-video or Droplet3D."""
    revision: str | None = None
    """Branch, tag or commit for a hub id; the commit that was used is recorded with every asset."""
    steps: int = 20
    """Sampler steps from pure noise, in [1, 1000]."""
    guidance_scale: float | None = None
    """Classifier-free guidance, in [0, 50]; up to 1 means none, which halves the forwards. None takes the family's own:
    3 for pocket, I2VGen-XL and Stable Video Diffusion, 2.5 for SV3D, 5 for Wan, 6 for Droplet3D."""
    refine_steps: int = 10
    """Sampler steps of one refinement (3.4, A.1: 10)."""
    refine_strength: float | None = None
    """Share of the noise schedule that a refinement runs through, in (0, 1]: 1 forgets the render. None takes the
    family's own, about as much noise as signal: 0.5 for pocket, I2VGen-XL and Droplet3D, 0.29 for Stable Video
    Diffusion and SV3D, 1 / (flow_shift + 1) for Wan."""
    device: Device = "auto"
    """'auto' takes CUDA where there is any."""
    dtype: Precision = "auto"
    """'auto' is float32 on the CPU; on CUDA bfloat16 for Wan and Droplet3D, float16 for the others."""
    lora: str | None = None
    """LoRA merged into the weights when they are loaded: a folder, a .safetensors file, an s3:// address, or
    'hub-id:file'. Of Wan 2.2 A14B's two networks both get it, or each its own of two joined by a comma."""
    lora_scale: float = 1.0
    """Strength of the LoRA, in [-10, 10]."""
    template: str | None = None
    """Text around the prompt, with {prompt} in it, as for a LoRA's trigger words; None takes the family's own."""
    negative_prompt: str | None = None
    """What guidance moves away from; None takes the family's own."""
    frames: int | None = None
    """Frames of the video, >= 4, for Wan and Droplet3D 4k + 1; None takes the family's own."""
    size: int | None = None
    """Side in pixels that the frames are made at, in [8, 4096]; None takes the family's own, else the image's."""
    flow_shift: float | None = None
    """Shift of Wan's noise levels towards noise, in (0, 100]; None takes the checkpoint's."""
    elevation: float | None = None
    """Elevation of the image's view in degrees, in (-90, 90): SV3D_p takes it, all others estimate it."""
    direction: Direction = "auto"
    """How the camera goes round, seen from above, where the family does not fix it; 'auto': to be estimated."""
    background: Literal["white", "black", "grey"] | None = None
    """What the generated frames show behind the object, where the family does not fix it."""
    closes: bool = True
    """Whether the last frame repeats the first view, where the family does not fix it."""
    offload: Offload = "none"
    """What waits in main memory for its turn: nothing, all 'parts' but the one at work, or the network's 'layers' too.
    Slower, for cards with less memory."""
    storage: Storage = "same"
    """'float8' keeps the network's weights in 8 bits and computes in `dtype`: half the memory, some quality."""
    decode_chunk: int | None = None
    """Frames that the decoder takes at a time, >= 1; None: 8 for Stable Video Diffusion, else 1."""

    def __post_init__(self) -> None:
        _check_sampling("video", self.model, self.steps, self.guidance_scale)
        if not 1 <= self.refine_steps <= 1000:
            raise UserError(f"video.refine_steps is {self.refine_steps}; it must lie in [1, 1000]")
        ranges = {"refine_strength": "(0, 1]", "flow_shift": "(0, 100]", "elevation": "(-90, 90)",
                  "lora_scale": "[-10, 10]", "frames": "[4, 1000]", "size": "[8, 4096]",
                  "decode_chunk": "[1, 1000]"}  # fmt: skip
        for name, interval in ranges.items():
            value = getattr(self, name)
            if value is not None and not _within(value, interval):
                raise UserError(f"video.{name} is {value}; it must lie in {interval}")
        if self.template is not None and "{prompt}" not in self.template:
            raise UserError(f"video.template is {self.template!r}; it must contain {{prompt}}")


def _within(value: float, interval: str) -> bool:
    low, high = (float(end) for end in interval[1:-1].split(","))
    above = value > low if interval[0] == "(" else value >= low
    return above and (value < high if interval[-1] == ")" else value <= high)


@dataclass(kw_only=True, slots=True)
class TrainConfig:
    """One run. Everything is scheduled by step, so that a slow machine trains the same model."""

    optimizer: Literal["adamw", "muon"] = "adamw"
    """AdamW, or Muon for matrices and AdamW for the rest; the same learning rate suits both."""
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
    lora_rank: int = 32
    """Of the LoRA that target wan-lora trains, >= 1."""
    lora_alpha: float = 32.0
    """Its weight is alpha / rank, alpha > 0."""
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
            raise UserError(f"num_steps is {self.num_steps}; it must be at least 1")
        for name in ("learning_rate", "max_grad_norm", "lora_alpha"):
            if not 0 < getattr(self, name) < float("inf"):
                raise UserError(f"{name} is {getattr(self, name)}; it must be positive and finite")
        for name in ("warmup_steps", "weight_decay", "seed"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise UserError(f"{name} is {getattr(self, name)}; it must be at least 0")
        if not 0 <= self.ema_decay < 1:
            raise UserError(f"ema_decay is {self.ema_decay}; it must lie in [0, 1)")
        if not (0 <= self.betas[0] < 1 and 0 <= self.betas[1] < 1):
            raise UserError(f"betas are {self.betas}; both must lie in [0, 1)")
        if not 0 <= self.decay_share <= 1:
            raise UserError(f"decay_share is {self.decay_share}; it must lie in [0, 1]")
        if not 0 <= self.text_dropout <= 1:
            raise UserError(f"text_dropout is {self.text_dropout}; it must lie in [0, 1]")
        positive = ("save_every", "keep_last", "sheet_every", "log_every", "lora_rank")
        for name in (*positive, "total_batch", "micro_batch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} is {value}; it must be at least 1")
        if self.validation_turntables < 0:
            raise UserError(f"validation_turntables is {self.validation_turntables}; it must be at least 0")


Views = Literal["all", "front", "any", "some", "quarters"]


@dataclass(kw_only=True, slots=True, frozen=True)
class Drawing:
    """What a target sees of a turntable, and of how many in a step."""

    batch: int
    """Turntables a step."""
    views: Views = "all"
    """All frames, the front alone, any one, frame 0 and `count` - 1 others, or four a quarter turn apart."""
    count: int = PAPER_VIEWS
    """Frames of a drawn turntable."""
    roll_share: float = 0.0
    """Share of the turntables that start at a random view instead of the front."""

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
            UserError: when it does not come out even.
        """
        total = config.total_batch or batch
        if total % workers:
            raise UserError(f"{total} turntables a step cannot be shared by {workers} workers; "
                            f"set train.total-batch to a multiple of {workers}")  # fmt: skip
        mine = total // workers
        micro = config.micro_batch or mine
        if mine % micro:
            raise UserError(f"{mine} turntables a step and worker are no multiple of train.micro-batch {micro}")
        return cls(total=total, micro=micro, rounds=mine // micro)
