"""Generate reference images of texts, by the embedded model or a pipeline of diffusers: `load_image_model`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from model.batch import check_batch
from model.config import ImageConfig
from recon.user_error import UserError

__all__ = ["DiffusersImageModel", "ImageConfig", "ImageModel", "load_image_model"]


class ImageModel(Protocol):
    """A loaded text-to-image generator."""

    revision: str
    """sha256 of the weights, or the hub's commit."""
    license: str
    """Licence of the weights."""
    num_evaluations: dict[str, int]
    """Of the last call, per sample: sampler "steps", and network "forwards" with guidance counted twice."""

    @property
    def size(self) -> int:
        """Side of its images in pixels: `ImageConfig.size`, else its own."""
        ...

    def generate(self, prompts: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
        """Images uint8 [B,H,W,3|4] for B prompts; a sample depends on its own prompt and seed only.

        Raises:
            ValueError: if there are not as many seeds as prompts.
        """
        ...


def load_image_model(spec: str | ImageConfig) -> ImageModel:
    """Load "pocket", a folder, an s3:// address or a hub id; an `ImageConfig` brings the sampler's settings along.

    Raises:
        ValueError: if the spec names no model, or one whose weights are not safetensors.
        UserError: in one sentence, if the GPU or the weights that the spec needs are missing.
    """
    from model import weights

    config = ImageConfig(model=spec) if isinstance(spec, str) else spec
    weights.device_of(config.device)
    folder = weights.locate(config.model, "image", config.revision)
    if config.model == "pocket" or weights.class_name(folder).startswith("Pocket"):
        from model.pocket.image import PocketImageModel

        return PocketImageModel.load(folder, config)
    return DiffusersImageModel.load(folder, config)


class DiffusersImageModel:
    """Any pipeline that `AutoPipelineForText2Image` knows, sampled with DPM-Solver++ where its scheduler allows."""

    def __init__(self, pipeline: Any, config: ImageConfig, revision: str, license: str) -> None:
        self.pipeline, self.config = pipeline, config
        self.revision, self.license = revision, license
        self.num_evaluations: dict[str, int] = {}

    @classmethod
    def load(cls, folder: Path, config: ImageConfig) -> DiffusersImageModel:
        """Load a diffusers folder; raises as `load_image_model`."""
        from recon.torchvision_shim import import_torchvision

        import_torchvision()
        from diffusers.pipelines.auto_pipeline import AutoPipelineForText2Image

        from model import sampling, weights

        revision = weights.revision_of(folder)
        device = weights.device_of(config.device)
        try:
            pipeline = AutoPipelineForText2Image.from_pretrained(
                folder, dtype=weights.dtype_of(config.dtype, device), use_safetensors=True
            )
        except (OSError, ValueError) as error:
            raise UserError(f"{folder} is no text-to-image pipeline in safetensors: {error}") from error
        if sampling.DPMSolverMultistepScheduler in getattr(pipeline.scheduler, "compatibles", []):
            pipeline.scheduler = sampling.dpm_solver(pipeline.scheduler.config)
        if hasattr(pipeline.vae, "enable_slicing"):
            pipeline.vae.enable_slicing()  # decodes an image at a time: eight of 1024 pixels would be the memory's peak
        pipeline.set_progress_bar_config(disable=True)
        return cls(pipeline.to(device), config, revision, weights.license_of(folder))

    @property
    def size(self) -> int:
        """Side of its images in pixels."""
        if self.config.size is not None:
            return self.config.size
        network = getattr(self.pipeline, "unet", None) or self.pipeline.transformer
        samples = getattr(self.pipeline, "default_sample_size", None) or network.config.sample_size
        return samples * getattr(self.pipeline, "vae_scale_factor", 8)

    def generate(self, prompts: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
        """Images uint8 [B,size,size,3]; see `ImageModel.generate`."""
        import torch

        from model.evaluations import counted

        check_batch(prompts, seeds=seeds)
        network = getattr(self.pipeline, "unet", None) or self.pipeline.transformer
        with counted(network, len(prompts), self.config.steps) as self.num_evaluations:
            images = self.pipeline(
                prompt=[self.config.template.replace("{prompt}", prompt) for prompt in prompts],
                num_inference_steps=self.config.steps,
                guidance_scale=self.config.guidance_scale,
                generator=[torch.Generator().manual_seed(int(seed)) for seed in seeds],
                output_type="pil",
            ).images
        return np.stack([np.asarray(self._resized(image.convert("RGB"))) for image in images])

    def _resized(self, image: Any) -> Any:
        from PIL import Image

        size = self.config.size
        return image if size in (None, image.width) else image.resize((size, size), Image.Resampling.LANCZOS)
