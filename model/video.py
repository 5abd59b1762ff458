"""Image and text to a turntable of 16 frames, and its refinement from partial noise (3.1, 3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from model.config import VideoConfig

__all__ = ["VideoConfig", "VideoModel", "load_video_model"]


class VideoModel(Protocol):
    """A loaded turntable generator. A sample depends on its own image, prompt and seed only."""

    revision: str
    """sha256 of the weights, or the hub's commit."""
    license: str
    """Licence of the weights."""
    num_evaluations: dict[str, int]
    """Of the last call, per sample: sampler "steps", and network "forwards" with guidance counted twice."""

    def generate(self, images: np.ndarray, prompts: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
        """Frames uint8 [B,16,H,W,3|4] from images uint8 [B,H,W,3|4]; frame 0 shows the image's view.

        Raises:
            ValueError: if the columns differ in length or the image size does not suit the model.
        """
        ...

    def refine(
        self, frames: np.ndarray, images: np.ndarray, prompts: Sequence[str], seeds: Sequence[int]
    ) -> np.ndarray:
        """Noise `frames` uint8 [B,16,H,W,3|4] part of the way and denoise them again; same size.

        Raises:
            ValueError: as `generate`.
        """
        ...


def load_video_model(spec: str | VideoConfig) -> VideoModel:
    """Load "pocket", a folder, an s3:// address or a hub id; a `VideoConfig` brings the sampler's settings along.

    Raises:
        ValueError: if the spec names no turntable model, or one whose weights are not safetensors.
        RuntimeError: in one sentence, if the GPU or the weights that the spec needs are missing.
    """
    from model import weights

    config = VideoConfig(model=spec) if isinstance(spec, str) else spec
    weights.device_of(config.device)
    folder = weights.locate(config.model, "video", config.revision)
    name = weights.class_name(folder)
    if config.model == "pocket" or name.startswith("Pocket"):
        from model.pocket.video import PocketVideoModel

        return PocketVideoModel.load(folder, config)
    if name == "I2VGenXLPipeline":
        from model.i2vgen_xl import I2VGenXLVideoModel

        return I2VGenXLVideoModel.load(folder, config)
    if name == "StableVideoDiffusionPipeline":
        from model.stable_video import StableVideoModel

        return StableVideoModel.load(folder, config)
    raise ValueError(f"{config.model} is a {name or 'folder without model_index.json'}; a turntable model is one of "
                     "Pocket*, I2VGenXLPipeline, StableVideoDiffusionPipeline")  # fmt: skip
