"""Generate turntables with Wan image-to-video, 2.1 14B, 2.2 A14B or 2.2 TI2V-5B: `WanVideoModel`.

Conditions follow the released pipeline (Wan team 2025, "Wan"). It turns objects with a LoRA trained for that; how fast
and which way round is then to be estimated.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model import sampling, weights
from model.clip_pixels import clip_pixels
from model.latent_video import Conditioned, LatentVideoModel
from model.tokens import read_tokenizer

TEXT_TOKENS = 512
TEMPORAL = 4
"""Frames of every latent but the first, which holds one."""
DEFAULT_SHIFT = 5.0
_ORIGINAL_NAMES = {
    r"\.attn1\.": ".self_attn.", r"\.attn2\.": ".cross_attn.", r"\.to_([qkv])$": r".\1", r"\.to_out\.0$": ".o",
    r"\.add_([kv])_proj$": r".\1_img", r"\.norm_added_k$": ".norm_k_img", r"^(blocks\.\d+)\.norm2$": r"\1.norm3",
    r"^(blocks\.\d+)\.ffn\.net\.0\.proj$": r"\1.ffn.0", r"^(blocks\.\d+)\.ffn\.net\.2$": r"\1.ffn.2",
    r"^condition_embedder\.(text|time)_embedder\.linear_1$": r"\1_embedding.0",
    r"^condition_embedder\.(text|time)_embedder\.linear_2$": r"\1_embedding.2",
    r"^condition_embedder\.time_proj$": "time_projection.1", r"^proj_out$": "head.head",
    r"^condition_embedder\.image_embedder\.norm1$": "img_emb.proj.0",
    r"^condition_embedder\.image_embedder\.ff\.net\.0\.proj$": "img_emb.proj.1",
    r"^condition_embedder\.image_embedder\.ff\.net\.2$": "img_emb.proj.3",
    r"^condition_embedder\.image_embedder\.norm2$": "img_emb.proj.4",
}  # fmt: skip


class WanVideoModel(LatentVideoModel):
    """Image and text to 81 or 121 frames; flow matching, latents of four frames each after the first."""

    network_name = "transformer"
    float32 = ("vae",)

    @classmethod
    def classes(cls, folder: Path) -> dict[str, Any]:
        """See `LatentVideoModel.classes`; the index tells which there are."""
        from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan
        from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
        from transformers import CLIPVisionModel, UMT5EncoderModel

        optional = {"transformer_2": WanTransformer3DModel, "image_encoder": CLIPVisionModel}
        index = weights.read_json(folder / "model_index.json")
        there = {name: kind for name, kind in optional.items() if any(index.get(name) or ())}
        return {
            "transformer": WanTransformer3DModel,
            "vae": AutoencoderKLWan,
            "text_encoder": UMT5EncoderModel,
        } | there

    @classmethod
    def read_files(cls, folder: Path) -> dict[str, Any]:
        """See `LatentVideoModel.read_files`."""
        files = {
            "index": weights.read_json(folder / "model_index.json"),
            "scheduler": weights.read_json(folder / "scheduler" / "scheduler_config.json"),
        }
        if any(files["index"].get("image_encoder") or ()):
            file = folder / "image_processor" / "preprocessor_config.json"
            files["image_processor"] = weights.read_json(file)
        return files | {"tokenizer": read_tokenizer(folder)}

    @classmethod
    def lora_name(cls, name: str) -> str:
        """The name that Wan's own code gives a module of `WanTransformer3DModel`."""
        for ours, theirs in _ORIGINAL_NAMES.items():
            name = re.sub(ours, theirs, name)
        return name

    @property
    def shift(self) -> float:
        """Shift of the noise levels: sigma = s t / (1 + (s - 1) t) of even t."""
        scheduler = self.files["scheduler"]
        return self.config.flow_shift or scheduler.get("flow_shift") or scheduler.get("shift") or DEFAULT_SHIFT

    @property
    def strength(self) -> float:
        """Where signal and noise weigh the same: sigma = 1/2 at t = 1 / (s + 1)."""
        return self.config.refine_strength or 1 / (self.shift + 1)

    def scheduler(self) -> sampling.Scheduler:
        """DPM-Solver++ on the shifted flow."""
        return sampling.flow_solver(self.shift)

    def latent_shape(self, side: int) -> tuple[int, int, int, int]:
        """See `LatentVideoModel.latent_shape`."""
        vae: Any = self.parts.networks["vae"].config
        network: Any = self.parts.networks["transformer"].config
        factor = vae.scale_factor_spatial
        multiple = factor * network.patch_size[1]
        if side % multiple:
            raise ValueError(f"images are {side} pixels a side; they must be square, a multiple of {multiple} a side: "
                             f"set video.size to {max(1, side // multiple) * multiple}")  # fmt: skip
        return ((len(self.views) - 1) // TEMPORAL + 1, vae.z_dim, side // factor, side // factor)

    def encode(self, pixels: Tensor) -> Tensor:
        """See `LatentVideoModel.encode`; the mode, normalised by each channel's mean and deviation."""
        vae, (mean, std) = self.vae, self._moments()
        latents = vae.encode(pixels.transpose(0, 1)[None].to(vae.dtype)).latent_dist.mode()[0]
        return ((latents.float() - mean) / std).transpose(0, 1)

    def decode(self, latents: Tensor) -> Tensor:
        """See `LatentVideoModel.decode`; the autoencoder goes latent by latent, which bounds memory."""
        vae, (mean, std) = self.vae, self._moments()
        channels_first = latents.transpose(0, 1) * std + mean
        return vae.decode(channels_first[None].to(vae.dtype)).sample[0].transpose(0, 1)

    def _moments(self) -> tuple[Tensor, Tensor]:
        config: Any = self.parts.networks["vae"].config
        mean, std = (torch.tensor(values, device=self.device).view(-1, 1, 1, 1)
                     for values in (config.latents_mean, config.latents_std))  # fmt: skip
        return mean, std

    def condition(self, images: Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> Conditioned:
        """See `LatentVideoModel.condition`; guidance changes the text alone."""
        del seeds
        text = self._text(prompts)
        negative = self._text([self.negative_prompt] * len(prompts)) if self.guidance > 1 else None
        tokens = self._image_tokens(images) if "image_encoder" in self.parts.networks else None
        expands = self.files["index"].get("expand_timesteps")
        given = self._first_latents(images) if expands else self._masked_latents(images)
        denoiser = self._denoiser_of_first if expands else self._denoiser_beside
        predict = denoiser(text, tokens, given)
        if negative is not None:
            predict = sampling.guided_in_turn(denoiser(negative, tokens, given), predict, self.guidance)
        if not expands:
            return Conditioned(predict=predict)
        return Conditioned(predict=predict, finish=lambda latents: torch.cat([given, latents[:, 1:]], 1))

    def _denoiser_beside(self, text: Tensor, tokens: Tensor | None, given: Tensor) -> sampling.ModelFn:
        """The network with `given` [B,T,4+C,h,w] as further channels."""

        def predict(noisy: Tensor, timestep: Tensor) -> Tensor:
            inputs = torch.cat([noisy, given], 2)
            return self._forward(inputs, timestep, timestep.expand(len(noisy)), text, tokens)

        return predict

    def _denoiser_of_first(self, text: Tensor, tokens: Tensor | None, given: Tensor) -> sampling.ModelFn:
        """The network with `given` [B,1,C,h,w] as the first latent, free of noise: a timestep a token."""
        network: Any = self.parts.networks["transformer"].config
        patch = network.patch_size[1]

        def predict(noisy: Tensor, timestep: Tensor) -> Tensor:
            inputs = torch.cat([given, noisy[:, 1:]], 1)
            noised = torch.ones_like(noisy[0, :, 0, ::patch, ::patch])
            noised[0] = 0
            times = (noised * timestep).flatten().expand(len(noisy), -1)
            return self._forward(inputs, timestep, times, text, tokens)

        return predict

    def _forward(self, inputs: Tensor, timestep: Tensor, times: Tensor, text: Tensor, tokens: Tensor | None) -> Tensor:
        prediction = self.parts.use(self._network_at(timestep))(
            hidden_states=inputs.transpose(1, 2).to(self.dtype), timestep=times, encoder_hidden_states=text,
            encoder_hidden_states_image=tokens, return_dict=False,
        )[0]  # fmt: skip
        return prediction.transpose(1, 2).float()

    def _network_at(self, timestep: Tensor) -> str:
        """Of two networks the first takes the noisy part of the schedule, timesteps from the boundary on."""
        boundary = self.files["index"].get("boundary_ratio")
        low = boundary is not None and "transformer_2" in self.parts.networks and float(timestep) < 1000 * boundary
        return "transformer_2" if low else "transformer"

    def _text(self, prompts: Sequence[str]) -> Tensor:
        """UMT5's states [B,512,D], zeros behind the text."""
        encoder = self.parts.use("text_encoder")
        tokens = self.files["tokenizer"](
            [" ".join(prompt.split()) for prompt in prompts], padding="max_length", max_length=TEXT_TOKENS,
            truncation=True, return_tensors="pt",
        ).to(self.device)  # fmt: skip
        states = encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state
        return (states * tokens.attention_mask[..., None]).to(self.dtype)

    def _image_tokens(self, images: Tensor) -> Tensor:
        """CLIP's states before the last layer [B,L,D] of images in [-1, 1]."""
        encoder = self.parts.use("image_encoder")
        pixels = clip_pixels(images, self.files["image_processor"], "bicubic")
        states = encoder(pixels.to(encoder.dtype), output_hidden_states=True).hidden_states
        return states[-2].to(self.dtype)

    def _first_latents(self, images: Tensor) -> Tensor:
        """Latents of the images alone [B,1,C,h,w]."""
        return torch.stack([self.encode(image[None]) for image in images])

    def _masked_latents(self, images: Tensor) -> Tensor:
        """For every latent whether its frames are given, four channels, and latents of the image followed by grey."""
        rows = []
        for image in images:
            video = torch.zeros(len(self.views), *image.shape, device=image.device)
            video[0] = image
            rows.append(self.encode(video))
        latents = torch.stack(rows)
        mask = torch.zeros_like(latents[:, :, :1]).repeat(1, 1, TEMPORAL, 1, 1)
        mask[:, 0] = 1
        return torch.cat([mask, latents], 2)
