"""Share what latent video adapters have in common, pixels to latents and sampling: `LatentVideoModel`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from model import sampling, weights
from model.batch import check_batch
from model.config import VideoConfig
from model.evaluations import counted
from model.lora import check_files, merge_files
from model.parts import Parts, load_parts
from model.video_models import Family, describe
from model.views import ViewPlan


def unchanged(latents: Tensor) -> Tensor:
    """The latents themselves."""
    return latents


@dataclass(kw_only=True, slots=True)
class Conditioned:
    """A batch's conditions, built into what the sampler needs."""

    predict: sampling.ModelFn
    """The denoiser, guidance included."""
    finish: Callable[[Tensor], Tensor] = unchanged
    """Clean latents [B,T,C,h,w] to those that are decoded."""


class LatentVideoModel(ABC):
    """`VideoModel` over a denoising network, a VAE and a solver; a family fills in its conditions.

    Latents are [B,T,C,h,w] float32 whatever order of axes the family's network takes, normalised as it has them.
    """

    network_name: ClassVar[str] = "unet"
    """Subfolder of the denoising network."""
    shows_image: ClassVar[bool] = False
    """Whether frame 0 is the image itself, as the family's own sampler has it."""
    float32: ClassVar[tuple[str, ...]] = ()
    """Subfolders that are read in float32 whatever the precision of the rest."""

    def __init__(
        self, parts: Parts, files: dict[str, Any], config: VideoConfig, family: Family, views: ViewPlan,
        revision: str, license: str,
    ) -> None:  # fmt: skip
        self.parts, self.files, self.config = parts, files, config
        self.family, self.views = family, views
        self.revision, self.license = revision, license
        self.guidance = family.guidance if config.guidance_scale is None else config.guidance_scale
        self.num_evaluations: dict[str, int] = {}

    @classmethod
    @abstractmethod
    def classes(cls, folder: Path) -> dict[str, Any]:
        """Subfolders of the networks, and the classes that read them."""

    @classmethod
    @abstractmethod
    def read_files(cls, folder: Path) -> dict[str, Any]:
        """What else is read: tokenizers, and settings of schedulers and image processors."""

    @classmethod
    def adapt(cls, networks: dict[str, nn.Module], folder: Path, config: VideoConfig) -> tuple[str, str]:
        """Merge the LoRA that the settings name, once the weights are read; revision and licence of the result."""
        revision, license = weights.revision_of(folder), weights.license_of(folder)
        if config.lora is None:
            return revision, license
        sampled = [part for name, part in networks.items() if name.startswith(cls.network_name)]
        merged = merge_files(sampled, config.lora, config.lora_scale, cls.lora_name)
        return f"{revision} + {merged[0]}", f"{license} + {merged[1]}"

    @classmethod
    def check_lora(cls, folder: Path, lora: str) -> None:
        """Raise UserError where a LoRA is none of this folder's networks, by names and shapes alone."""
        kinds = {name: kind for name, kind in cls.classes(folder).items() if name.startswith(cls.network_name)}
        with torch.device("meta"):
            networks = [kind.from_config(kind.load_config(folder / name)) for name, kind in kinds.items()]
        check_files(networks, lora, cls.lora_name)

    @classmethod
    def lora_name(cls, name: str) -> str:
        """What a LoRA may call a module of the denoising network, beside its name here."""
        return name

    @classmethod
    def load(cls, folder: Path, config: VideoConfig) -> Self:
        """Load the family's pipeline folder, safetensors only.

        Raises:
            ValueError: if a part of the folder is missing, or a setting is not for this family.
            RuntimeError: if the device that the settings ask for is missing.
        """
        family, views = describe(replace(config, model=str(folder)))
        weights.revision_of(folder)
        device = weights.device_of(config.device)
        dtype = weights.dtype_of(config.dtype, device, family.half)
        from recon.torchvision_shim import import_torchvision

        import_torchvision()
        classes, files = cls.classes(folder), cls.read_files(folder)
        networks = load_parts(folder, classes, dtype, cls.float32)
        revision, license = cls.adapt(networks, folder, config)
        sampled = [name for name in networks if name.startswith(cls.network_name)]
        parts = Parts(networks, sampled, device, dtype, config.offload, config.storage)
        return cls(parts, files, config, family, views, revision, license)

    @property
    def network(self) -> Any:
        """The denoising network, on its device."""
        return self.parts.use(self.network_name)

    @property
    def vae(self) -> Any:
        """The autoencoder, on its device."""
        return self.parts.use("vae")

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the denoising network's forward pass."""
        return self.parts.networks[self.network_name].dtype  # pyright: ignore[reportReturnType]

    @property
    def device(self) -> torch.device:
        """Where the networks work; in training, where they were moved to."""
        if self.config.offload != "none":
            return self.parts.device
        return next(self.parts.networks[self.network_name].parameters()).device

    @abstractmethod
    def scheduler(self) -> sampling.Scheduler:
        """A fresh solver for one batch."""

    @abstractmethod
    def condition(self, images: Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> Conditioned:
        """The batch's conditions for `images` [B,3,S,S] in [-1, 1]."""

    @abstractmethod
    def latent_shape(self, side: int) -> tuple[int, int, int, int]:
        """[T,C,h,w] of the latents of a video whose frames are `side` pixels.

        Raises:
            ValueError: if frames of that size have none.
        """

    @abstractmethod
    def encode(self, pixels: Tensor) -> Tensor:
        """A video's pixels [F,3,S,S] in [-1, 1] to latents [T,C,h,w]."""

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """A video's latents [T,C,h,w] to pixels [F,3,S,S], about in [-1, 1]."""

    @property
    def strength(self) -> float:
        """Share of the noise schedule that a refinement runs through."""
        default = self.family.strength
        assert default is not None, "a family whose strength depends on its shift says so itself"
        return self.config.refine_strength or default

    @torch.no_grad()
    def generate(self, images: np.ndarray, prompts: Sequence[str], seeds: Sequence[int]) -> np.ndarray:
        """Frames uint8 [B,F,S,S,3]; see `VideoModel.generate`. An alpha channel of the images is dropped."""
        check_batch(prompts, images=images, seeds=seeds)
        pixels = self.pixels(images, self.views.size)
        shape = self.latent_shape(_side(pixels))
        conditioned = self.condition(pixels, self.prompts(prompts), seeds)
        noise = sampling.seeded_noise(shape, seeds, self.device)
        with self._counted(len(prompts), self.config.steps) as self.num_evaluations:
            latents = sampling.sample(conditioned.predict, noise, self.scheduler(), self.config.steps)
        return self._frames(conditioned.finish(latents), pixels)

    @torch.no_grad()
    def refine(
        self, frames: np.ndarray, images: np.ndarray, prompts: Sequence[str], seeds: Sequence[int]
    ) -> np.ndarray:
        """Frames uint8 [B,F,S,S,3]; see `VideoModel.refine`. An alpha channel is dropped: frames are over white."""
        check_batch(prompts, frames=frames, images=images, seeds=seeds)
        self.views.check(frames.shape[1])
        side = self.views.size or frames.shape[2]
        videos = [self.pixels(video, side) for video in frames]
        shape = self.latent_shape(_side(videos[0]))
        clean = torch.stack([self.encode(video) for video in videos])
        pixels = self.pixels(images, side)
        conditioned = self.condition(pixels, self.prompts(prompts), seeds)
        noise = sampling.seeded_noise(shape, seeds, self.device)
        steps = self.config.refine_steps
        with self._counted(len(prompts), steps) as self.num_evaluations:
            latents = sampling.restart(conditioned.predict, clean, noise, self.scheduler(), steps, self.strength)
        return self._frames(conditioned.finish(latents), pixels)

    def prompts(self, prompts: Sequence[str]) -> list[str]:
        """The prompts within the template."""
        template = self.family.template if self.config.template is None else self.config.template
        return [template.replace("{prompt}", prompt) for prompt in prompts]

    @property
    def negative_prompt(self) -> str:
        """What guidance moves away from."""
        given = self.config.negative_prompt
        return self.family.negative_prompt if given is None else given

    def pixels(self, images: np.ndarray, side: int | None = None) -> Tensor:
        """Images uint8 [N,H,W,3|4] as float32 [N,3,H,W] in [-1, 1] on the device, resized to `side` where given."""
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (3, 4):
            raise ValueError(f"images are {images.dtype} {images.shape}; expected uint8 [B,H,W,3|4]")
        rgb = torch.from_numpy(np.ascontiguousarray(images[..., :3])).to(self.device)
        pixels = rgb.permute(0, 3, 1, 2).float() / 127.5 - 1
        if side is None or images.shape[1:3] == (side, side):
            return pixels
        if images.shape[1] != images.shape[2]:
            raise ValueError(f"images are {images.shape[1]}x{images.shape[2]} pixels; they must be square")
        resized = functional.interpolate(pixels, (side, side), mode="bicubic", antialias=True, align_corners=False)
        return resized.clamp(-1, 1)

    def _counted(self, num_samples: int, steps: int) -> Any:
        sampled = [part for name, part in self.parts.networks.items() if name.startswith(self.network_name)]
        return counted(sampled, num_samples, steps)

    def _frames(self, latents: Tensor, images: Tensor) -> np.ndarray:
        videos = torch.stack([self.decode(video) for video in latents]).float()
        if self.shows_image:
            videos[:, 0] = images
        pixels = (videos.clamp(-1, 1) + 1) * 127.5
        return pixels.round().byte().permute(0, 1, 3, 4, 2).cpu().numpy()


def _side(pixels: Tensor) -> int:
    height, width = pixels.shape[-2:]
    if height != width:
        raise ValueError(f"images are {height}x{width} pixels; they must be square")
    return height
