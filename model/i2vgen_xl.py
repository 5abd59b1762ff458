"""Generate turntables with I2VGen-XL's networks under our own sampling loop: `I2VGenXLVideoModel`.

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
from model.clip_pixels import clip_pixels
from model.image_vae import FramewiseVideoModel, single_precision
from model.latent_video import Conditioned

FRAMES_PER_SECOND = 16


class I2VGenXLVideoModel(FramewiseVideoModel):
    """Text and image to a turntable; variance-preserving noise, v-prediction, zero terminal SNR."""

    @classmethod
    def classes(cls, folder: Path) -> dict[str, Any]:
        """See `LatentVideoModel.classes`."""
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
        from diffusers.models.unets.unet_i2vgen_xl import I2VGenXLUNet
        from transformers import CLIPTextModel, CLIPVisionModelWithProjection

        return {
            "unet": I2VGenXLUNet,
            "vae": AutoencoderKL,
            "text_encoder": CLIPTextModel,
            "image_encoder": CLIPVisionModelWithProjection,
        }

    @classmethod
    def read_files(cls, folder: Path) -> dict[str, Any]:
        """See `LatentVideoModel.read_files`."""
        from transformers import CLIPTokenizer

        names = {"feature_extractor": "preprocessor_config", "scheduler": "scheduler_config"}
        files = {name: weights.read_json(folder / name / f"{file}.json") for name, file in names.items()}
        weights.read_json(folder / "tokenizer" / "tokenizer_config.json")
        return files | {"tokenizer": CLIPTokenizer.from_pretrained(folder / "tokenizer")}

    def scheduler(self) -> sampling.Scheduler:
        """DPM-Solver++ on the checkpoint's own betas and prediction type."""
        return sampling.dpm_solver(self.files["scheduler"])

    def condition(self, images: Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> Conditioned:
        """See `LatentVideoModel.condition`; the unconditional half sees the negative prompt and no CLIP image."""
        scale = self.guidance
        text, image, latents = self.conditions(images, prompts)
        if scale > 1:
            text = torch.cat([self._text([self.negative_prompt] * len(prompts)), text])
            image = torch.cat([torch.zeros_like(image), image])
            latents = torch.cat([latents, latents])
        predict = self.denoiser(text, image, latents)
        return Conditioned(predict=sampling.guided(predict, scale) if scale > 1 else predict)

    def conditions(self, images: Tensor, prompts: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Text [B,L,D], image embedding [B,1,D] and image latents [B,C,F,h,w] of images [B,3,H,W] in [-1, 1]."""
        return self._text(list(prompts)), self._image(images), self._image_latents(images)

    def denoiser(self, text: Tensor, image: Tensor, latents: Tensor) -> sampling.ModelFn:
        """The network under these conditions."""
        dtype = self.dtype
        fps = torch.full((len(text),), FRAMES_PER_SECOND, device=self.device)

        def predict(noisy: Tensor, timestep: Tensor) -> Tensor:
            prediction = self.network(
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

    def decode_frames(self, vae: Any, latents: Tensor) -> Tensor:
        """In float32 where the checkpoint asks for it, as it was released."""
        with single_precision(vae) as exact:
            return exact.decode(latents.to(exact.dtype)).sample

    def _text(self, prompts: list[str]) -> Tensor:
        """CLIP's last but one layer [B,L,D], normalised as its last."""
        tokenizer, encoder = self.files["tokenizer"], self.parts.use("text_encoder")
        length = min(tokenizer.model_max_length, encoder.config.max_position_embeddings)
        tokens = tokenizer(prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        states = encoder(tokens.input_ids.to(self.device), output_hidden_states=True).hidden_states
        return getattr(encoder, "text_model", encoder).final_layer_norm(states[-2])

    def _image(self, images: Tensor) -> Tensor:
        """CLIP's embedding [B,1,D] of images in [-1, 1]."""
        encoder = self.parts.use("image_encoder")
        pixels = clip_pixels(images, self.files["feature_extractor"], "bilinear")
        return encoder(pixels.to(encoder.dtype)).image_embeds[:, None]

    def _image_latents(self, images: Tensor) -> Tensor:
        """Frame 0's latents, then one constant frame per position in (0, 1]: [B,C,F,h,w]."""
        first, count = self.encode(images)[:, :, None], len(self.views)
        positions = torch.arange(1, count, device=first.device).view(1, 1, -1, 1, 1) / (count - 1)
        return torch.cat([first, positions.expand(*first.shape[:2], -1, *first.shape[3:])], 2)
