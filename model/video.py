"""Turn image and text into a turntable, and refine it from partial noise (3.1, 3.4): `load_video_model`."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from model import weights
from model.config import VideoConfig
from model.video_models import Family, describe, view_plan
from model.views import ViewPlan

__all__ = ["VideoConfig", "VideoModel", "ViewPlan", "load_video_model", "view_plan"]


class VideoModel(Protocol):
    """A loaded turntable generator. A sample depends on its own image, prompt and seed only."""

    revision: str
    """sha256 of the weights, or the hub's commit."""
    license: str
    """Licence of the weights."""
    num_evaluations: dict[str, int]
    """Of the last call, per sample: sampler "steps", and network "forwards" with guidance counted twice."""

    @property
    def views(self) -> ViewPlan:
        """The cameras of the frames."""
        ...

    def generate(self, images: np.ndarray, prompts: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
        """Frames uint8 [B,F,S,S,3|4] from images uint8 [B,H,H,3|4]: as many as `views` has, of its size, which is the
        images' where it gives none; frame 0 shows the image's view.

        Raises:
            ValueError: if the columns differ in length or the image size does not suit the model.
        """
        ...

    def refine(
        self, frames: np.ndarray, images: np.ndarray, prompts: Sequence[str], seeds: Sequence[int]
    ) -> np.ndarray:
        """Noise every native frame, uint8 [B,F,S,S,3|4], part of the way and denoise them again.

        The answer has the size of `views`, or the frames' where it gives none; the images may have another.

        Raises:
            ValueError: as `generate`, and if there are not as many frames as `views` has.
        """
        ...


def load_video_model(spec: str | VideoConfig) -> VideoModel:
    """Load "pocket", a folder, an s3:// address or a hub id; a `VideoConfig` brings the sampler's settings along.

    Raises:
        ValueError: if the spec names no turntable model, one whose weights are not safetensors, or settings that its
            family has no use for.
        RuntimeError: in one sentence, if the GPU or the weights that the spec needs are missing.
    """
    config = VideoConfig(model=spec) if isinstance(spec, str) else spec
    weights.device_of(config.device)
    family, _ = describe(config)
    folder = weights.locate(config.model, "video", config.revision)
    adapter = _adapter(family)
    scale = family.guidance if config.guidance_scale is None else config.guidance_scale
    return adapter.load(folder, replace(config, guidance_scale=scale))


def check_lora(config: VideoConfig) -> None:
    """Compare the LoRA that the settings name with the model's networks; neither's weights are read.

    Raises:
        UserError: if it is another family's or size's, broken, or nowhere to be had.
    """
    from recon.torchvision_shim import import_torchvision

    import_torchvision()
    family, _ = describe(config)
    if config.lora is not None:
        _adapter(family).check_lora(weights.locate(config.model, "video", config.revision), config.lora)


def _adapter(family: Family) -> Any:
    """The class that runs a family."""
    module, name = family.adapter.split(":")
    return getattr(importlib.import_module(module), name)
