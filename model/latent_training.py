"""Fine-tune I2VGen-XL and Stable Video Diffusion to turntables (3.1), temporal layers only: `LatentVideoLoss`.

The loss is each family's own: noise of the checkpoint's schedule and its prediction type, or Karras et al. 2022
in velocity form. A sample whose conditions are dropped sees what guidance takes for "no condition".
"""

from __future__ import annotations

import shutil
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor, nn

from model.config import TrainConfig, VideoConfig
from model.i2vgen_xl import I2VGenXLVideoModel
from model.pocket.data import Batch
from model.pocket.losses import Terms, diffusion_loss, normal
from model.stable_video import StableVideoModel
from model.sv3d import SV3DModel
from model.temporal import Family, freeze_spatial
from model.training import Recipe, Setting, autocast

SIGMA_MEAN, SIGMA_STD = 0.7, 1.6
"""Of the logarithm of the noise level (Blattmann et al. 2023, image to video)."""
WITHOUT_UNET = shutil.ignore_patterns("unet")


class LatentVideoLoss(nn.Module):
    """What the families share: pixels to latents, dropped conditions, and which parameters move."""

    def __init__(self, model: Any, config: TrainConfig) -> None:
        super().__init__()
        self.unet, self.config = model.network, config
        self.frozen = nn.ModuleDict({name: part for name, part in model.parts.networks.items() if name != "unet"})
        self.families = [model]  # in a list: it is no module, and holds these modules

    def forward(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Terms]:
        """The loss, and the same by noise level."""
        pixels = batch.frames[..., :3].permute(0, 1, 4, 2, 3).float() / 127.5 - 1
        model = self.families[0]
        with torch.no_grad():
            latents = torch.stack([model.encode(video) for video in pixels])
            kept = torch.rand(len(batch), generator=generator) >= self.config.text_dropout
            seeds = torch.randint(1 << 31, (len(batch),), generator=generator).tolist()
            predict = self.denoiser(pixels[:, 0], batch.captions, kept, seeds)
        with autocast(latents.device, self.config.precision):
            return self.error(predict, latents, generator)

    @abstractmethod
    def denoiser(self, images: Tensor, captions: Sequence[str], kept: Tensor, seeds: Sequence[int]) -> Any:
        """The network under its conditions, dropped where `kept` [B], on the CPU, is false."""

    @abstractmethod
    def error(self, predict: Any, latents: Tensor, generator: torch.Generator) -> tuple[Tensor, Terms]:
        """The loss of the network's prediction on noised latents [B,F,C,h,w]."""


class I2VGenXLLoss(LatentVideoLoss):
    """Noise of the checkpoint's own schedule, its prediction type; text and CLIP image are dropped together."""

    def __init__(self, model: I2VGenXLVideoModel, config: TrainConfig) -> None:
        super().__init__(model, config)
        self.schedule = DDPMScheduler.from_config(model.files["scheduler"])

    def denoiser(self, images: Tensor, captions: Sequence[str], kept: Tensor, seeds: Sequence[int]) -> Any:
        """See `LatentVideoLoss.denoiser`."""
        prompts = [caption if keep else "" for caption, keep in zip(captions, kept.tolist(), strict=True)]
        text, image, latents = self.families[0].conditions(images, prompts)
        return self.families[0].denoiser(text, image * kept[:, None, None].to(image), latents)

    def error(self, predict: Any, latents: Tensor, generator: torch.Generator) -> tuple[Tensor, Terms]:
        """See `LatentVideoLoss.error`."""
        schedule: Any = self.schedule
        steps = schedule.config.num_train_timesteps
        timesteps = torch.randint(steps, (len(latents),), generator=generator).to(latents.device)
        noise = normal(latents, generator)
        kinds = {"epsilon": noise, "sample": latents}
        kind = schedule.config.prediction_type
        target = schedule.get_velocity(latents, noise, timesteps) if kind == "v_prediction" else kinds[kind]
        prediction = predict(schedule.add_noise(latents, noise, timesteps), timesteps)
        return diffusion_loss(prediction, target, timesteps * 1000 // steps)


class StableVideoLoss(LatentVideoLoss):
    """Log-normal noise levels; the squared error of the velocity, which is EDM's weighted error of the clean latents.

        x = x0 + s n,  F(x / sqrt(s^2 + 1), log(s) / 4) ~ (n - s x0) / sqrt(s^2 + 1)

    Image embedding and image latents are dropped together.
    """

    def denoiser(self, images: Tensor, captions: Sequence[str], kept: Tensor, seeds: Sequence[int]) -> Any:
        """See `LatentVideoLoss.denoiser`; captions are not used."""
        image, latents = self.families[0].conditions(images, seeds)
        seen = kept[:, None, None].to(image)
        return self.families[0].denoiser(image * seen, latents * seen[..., None, None].to(latents))

    def error(self, predict: Any, latents: Tensor, generator: torch.Generator) -> tuple[Tensor, Terms]:
        """See `LatentVideoLoss.error`."""
        drawn = torch.randn(len(latents), generator=generator).to(latents.device)
        sigma = (SIGMA_MEAN + SIGMA_STD * drawn).exp()
        level = sigma.view(-1, 1, 1, 1, 1)
        noise, scale = normal(latents, generator), (level**2 + 1).sqrt()
        prediction = predict((latents + level * noise) / scale, 0.25 * sigma.log())
        error = (prediction.float() - (noise - level * latents) / scale).square().flatten(1).mean(1)
        return error.mean(), {}


class SV3DLoss(StableVideoLoss):
    """The same for SV3D_u, whose network has the picture's view as its last frame."""

    def denoiser(self, images: Tensor, captions: Sequence[str], kept: Tensor, seeds: Sequence[int]) -> Any:
        """See `LatentVideoLoss.denoiser`; frames as everywhere here, the picture's view first."""
        predict = super().denoiser(images, captions, kept, seeds)
        return lambda noisy, timestep: predict(noisy.roll(-1, 1), timestep).roll(1, 1)


def i2vgen_xl(setting: Setting) -> Recipe:
    """I2VGen-XL's temporal layers."""
    return _recipe(setting, "i2vgen-xl", "i2vgen-xl", I2VGenXLVideoModel, I2VGenXLLoss)


def stable_video(setting: Setting) -> Recipe:
    """Stable Video Diffusion's temporal layers."""
    return _recipe(setting, "svd", "svd", StableVideoModel, StableVideoLoss)


def sv3d(setting: Setting) -> Recipe:
    """SV3D_u's temporal layers."""
    return _recipe(setting, "sv3d", "svd", SV3DModel, SV3DLoss)


def _recipe(setting: Setting, name: str, family: Family, kind: Any, loss: type[LatentVideoLoss]) -> Recipe:
    made = f"{name}-turntable"
    base = setting.weights / (made if setting.config.from_weights else name)
    model = kind.load(base, VideoConfig(model=str(base), device="cpu", dtype="float32", guidance_scale=1.0))
    unet = model.network
    freeze_spatial(unet, family)

    def save(folder: Path) -> None:
        shutil.copytree(base, folder / made, ignore=WITHOUT_UNET)
        half = type(unet).from_config(unet.config)
        half.load_state_dict(unet.state_dict())
        half.half().save_pretrained(folder / made / "unet", max_shard_size="100GB")

    unet.train()
    blocks = [*unet.down_blocks, unet.mid_block, *unet.up_blocks]
    return Recipe(loss=loss(model, setting.config), save=save, blocks=blocks)
