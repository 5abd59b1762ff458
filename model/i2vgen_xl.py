"""I2VGen-XL as a turntable model: its networks from a diffusers folder, under our own sampling loop.

Conditions follow Zhang et al. 2023 ("I2VGen-XL") as the released pipeline feeds them: text from CLIP's
last but one layer, the image through CLIP, as latents of frame 0, and frame positions as its padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model import sampling, weights
from model.config import VideoConfig
from model.latent_video import NUM_FRAMES, LatentVideoModel, clip_pixels

FRAMES_PER_SECOND = 16


class I2VGenXLVideoModel(LatentVideoModel):
    """Text and image to 16 frames; variance-preserving noise, v-prediction, zero terminal SNR."""

    default_strength = 0.5

    @classmethod
    def load(cls, folder: Path, config: VideoConfig) -> I2VGenXLVideoModel:
        """Load the networks of an `I2VGenXLPipeline` folder, safetensors only.

        Raises:
            ValueError: if a part of the folder is missing.
        """
        revision, device = weights.revision_of(folder), weights.device_of(config.device)
        dtype = weights.dtype_of(config.dtype, device)
        from recon.torchvision_shim import import_torchvision

        import_torchvision()
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
        from diffusers.models.unets.unet_i2vgen_xl import I2VGenXLUNet
        from transformers import CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

        parts = {
            "unet": I2VGenXLUNet,
            "vae": AutoencoderKL,
            "text_encoder": CLIPTextModel,
            "image_encoder": CLIPVisionModelWithProjection,
        }
        modules: dict[str, Any] = weights.load_parts(folder, parts, device, dtype)
        files = {"feature_extractor": "preprocessor_config", "scheduler": "scheduler_config"}
        for name, file in files.items():
            modules[name] = weights.read_json(folder / name / f"{file}.json")
        weights.read_json(folder / "tokenizer" / "tokenizer_config.json")
        modules["tokenizer"] = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        return cls(modules, config, revision, weights.license_of(folder))

    def scheduler(self) -> sampling.Scheduler:
        """DPM-Solver++ on the checkpoint's own betas and prediction type."""
        return sampling.dpm_solver(self.modules["scheduler"])

    def condition(self, images: Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> sampling.ModelFn:
        """The guided denoiser of [B,16,C,h,w]; the unconditional half sees no text and no CLIP image."""
        scale = self.config.guidance_scale
        text, image, latents = self.conditions(images, prompts)
        if scale > 1:
            text = torch.cat([self._text([""] * len(prompts)), text])
            image = torch.cat([torch.zeros_like(image), image])
            latents = torch.cat([latents, latents])
        predict = self.denoiser(text, image, latents)
        return sampling.guided(predict, scale) if scale > 1 else predict

    def conditions(self, images: Tensor, prompts: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Text [B,L,D], image embedding [B,1,D] and image latents [B,C,16,h,w] of images [B,3,H,W] in [-1, 1]."""
        return self._text(list(prompts)), self._image(images), self._image_latents(images)

    def denoiser(self, text: Tensor, image: Tensor, latents: Tensor) -> sampling.ModelFn:
        """The network under these conditions."""
        dtype = self.unet.dtype
        fps = torch.full((len(text),), FRAMES_PER_SECOND, device=self.unet.device)

        def predict(noisy: Tensor, timestep: Tensor) -> Tensor:
            prediction = self.unet(
                noisy.to(dtype).transpose(1, 2),
                timestep,
                fps=fps,
                image_latents=latents.to(dtype),
                image_embeddings=image.to(dtype),
                encoder_hidden_states=text.to(dtype),
                return_dict=False,
            )[0]
            return prediction.transpose(1, 2).float()

        return predict

    def decode(self, latents: Tensor) -> Tensor:
        """One frame at a time, which bounds memory."""
        return torch.cat([self.vae.decode(row[None].to(self.vae.dtype)).sample for row in latents])

    def _text(self, prompts: list[str]) -> Tensor:
        """CLIP's last but one layer [B,L,D], normalised as its last."""
        tokenizer, encoder = self.modules["tokenizer"], self.modules["text_encoder"]
        length = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
        tokens = tokenizer(prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        states = encoder(tokens.input_ids.to(self.unet.device), output_hidden_states=True).hidden_states
        return getattr(encoder, "text_model", encoder).final_layer_norm(states[-2])

    def _image(self, images: Tensor) -> Tensor:
        """CLIP's embedding [B,1,D] of images in [-1, 1]."""
        encoder = self.modules["image_encoder"]
        pixels = clip_pixels(images, self.modules["feature_extractor"], "bilinear")
        return encoder(pixels.to(encoder.dtype)).image_embeds[:, None]

    def _image_latents(self, images: Tensor) -> Tensor:
        """Frame 0's latents, then one constant frame per position in (0, 1]: [B,C,16,h,w]."""
        first = (self._encode(images) * self.vae.config.scaling_factor)[:, :, None]
        positions = torch.arange(1, NUM_FRAMES, device=first.device).view(1, 1, -1, 1, 1) / (NUM_FRAMES - 1)
        return torch.cat([first, positions.expand(*first.shape[:2], -1, *first.shape[3:])], 2)
