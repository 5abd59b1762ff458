"""Generate turntables with Droplet3D, one orbit of 85 frames by CogVideoX's classes: `Droplet3DModel`.

Conditions follow Li et al. 2025 ("Droplet3D") and its released code: beside the noisy latents a mask and the latents of
the image followed by black frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model import sampling, weights
from model.latent_video import Conditioned, LatentVideoModel
from model.tokens import read_tokenizer
from recon.user_error import UserError

TEXT_TOKENS = 450
TEMPORAL = 4
"""Frames of every latent but the first, which holds one."""
ENCODED_FRAMES = 4
"""Frames that its encoder takes at a time; the statistics of its norms go over them."""
BASE_GRID = (30, 45)
"""Patches, height and width, that the rotary positions were trained on: 480 x 720 pixels."""


class Droplet3DModel(LatentVideoModel):
    """Image and text to a full turn; variance-preserving noise on CogVideoX's schedule."""

    network_name = "transformer"

    @classmethod
    def classes(cls, folder: Path) -> dict[str, Any]:
        """See `LatentVideoModel.classes`.

        Raises:
            ValueError: if the network does not take a mask beside two videos: it is another CogVideoX.
        """
        from diffusers.models.autoencoders.autoencoder_kl_cogvideox import AutoencoderKLCogVideoX
        from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
        from transformers import T5EncoderModel

        channels = weights.read_json(folder / "transformer" / "config.json").get("in_channels")
        latent = weights.read_json(folder / "vae" / "config.json").get("latent_channels", 16)
        if channels != 2 * latent + 1:
            raise UserError(f"{folder}/transformer takes {channels} channels and Droplet3D {2 * latent + 1}, noisy "
                            "latents, mask and image: it is another CogVideoX")  # fmt: skip
        return {
            "transformer": CogVideoXTransformer3DModel,
            "vae": AutoencoderKLCogVideoX,
            "text_encoder": T5EncoderModel,
        }

    @classmethod
    def read_files(cls, folder: Path) -> dict[str, Any]:
        """See `LatentVideoModel.read_files`."""
        scheduler = weights.read_json(folder / "scheduler" / "scheduler_config.json")
        return {"scheduler": scheduler, "tokenizer": read_tokenizer(folder)}

    def scheduler(self) -> sampling.Scheduler:
        """DPM-Solver++ on the checkpoint's own noise levels and prediction type."""
        return sampling.dpm_solver(with_shifted_noise(self.files["scheduler"]))

    def latent_shape(self, side: int) -> tuple[int, int, int, int]:
        """See `LatentVideoModel.latent_shape`."""
        vae: Any = self.parts.networks["vae"].config
        network: Any = self.parts.networks["transformer"].config
        factor = 2 ** (len(vae.block_out_channels) - 1)
        multiple = factor * network.patch_size
        if side % multiple:
            raise ValueError(f"images are {side} pixels a side; they must be square, a multiple of {multiple} a side")
        return ((len(self.views) - 1) // TEMPORAL + 1, vae.latent_channels, side // factor, side // factor)

    def encode(self, pixels: Tensor) -> Tensor:
        """See `LatentVideoModel.encode`; the mode."""
        vae = self.vae
        vae.num_sample_frames_batch_size = ENCODED_FRAMES
        latents = vae.encode(pixels.transpose(0, 1)[None].to(vae.dtype)).latent_dist.mode()[0]
        return latents.transpose(0, 1).float() * vae.config.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """See `LatentVideoModel.decode`.

        The decoder takes latents in twos and makes four frames of each; of an even number the first makes four too,
        of which the last is the video's first.
        """
        vae = self.vae
        scaled = latents.transpose(0, 1)[None] / vae.config.scaling_factor
        frames = vae.decode(scaled.to(vae.dtype)).sample[0].transpose(0, 1)
        return frames[-((len(latents) - 1) * TEMPORAL + 1) :]

    def condition(self, images: Tensor, prompts: Sequence[str], seeds: Sequence[int]) -> Conditioned:
        """See `LatentVideoModel.condition`; guidance changes the text alone."""
        del seeds
        text = self._text(prompts)
        negative = self._text([self.negative_prompt] * len(prompts)) if self.guidance > 1 else None
        planes = self.condition_planes(images)
        predict = self._denoiser(text, planes)
        if negative is None:
            return Conditioned(predict=predict)
        return Conditioned(predict=sampling.guided_in_turn(self._denoiser(negative, planes), predict, self.guidance))

    def condition_planes(self, images: Tensor) -> Tensor:
        """Mask and condition latents [B,T,1+C,h,w]: the image, then frames of -1.

        The mask is 1 where the frame is given, and scaled as latents are.
        """
        rows = []
        for image in images:
            video = torch.full((len(self.views), *image.shape), -1.0, device=image.device)
            video[0] = image
            rows.append(self.encode(video))
        latents = torch.stack(rows)
        mask = torch.zeros_like(latents[:, :, :1])
        mask[:, 0] = self.vae.config.scaling_factor
        return torch.cat([mask, latents], 2)

    def _denoiser(self, text: Tensor, planes: Tensor) -> sampling.ModelFn:
        rotary = self._rotary(planes)

        def predict(noisy: Tensor, timestep: Tensor) -> Tensor:
            network = self.network
            return network(
                hidden_states=torch.cat([noisy, planes], 2).to(self.dtype), encoder_hidden_states=text,
                timestep=timestep.expand(len(noisy)), image_rotary_emb=rotary, return_dict=False,
            )[0].float()  # fmt: skip

        return predict

    def _rotary(self, planes: Tensor) -> tuple[Tensor, Tensor]:
        """Rotary positions of a square grid, stretched over the one that was trained on."""
        from diffusers.models.embeddings import get_3d_rotary_pos_embed

        config: Any = self.parts.networks["transformer"].config
        frames, side = planes.shape[1], planes.shape[-1] // config.patch_size
        height, width = BASE_GRID
        left = round((width - height) / 2)
        crop = ((0, left), (height, left + height))
        embedding: Any = get_3d_rotary_pos_embed(
            embed_dim=config.attention_head_dim, crops_coords=crop, grid_size=(side, side), temporal_size=frames,
            device=self.device,
        )  # fmt: skip
        return embedding[0], embedding[1]

    def _text(self, prompts: Sequence[str]) -> Tensor:
        """T5's states [B,450,D], padding included as it was trained."""
        encoder = self.parts.use("text_encoder")
        tokens = self.files["tokenizer"](
            list(prompts), padding="max_length", max_length=TEXT_TOKENS, truncation=True,
            return_tensors="pt",
        )  # fmt: skip
        return encoder(tokens.input_ids.to(self.device)).last_hidden_state.to(self.dtype)


def with_shifted_noise(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config of a scheduler of CogVideoX with its shift s of the noise, a / (s + (1 - s) a), as betas.

    Schedulers of other classes know none, and their configs come back as they are.
    """
    from diffusers.schedulers.scheduling_ddim_cogvideox import CogVideoXDDIMScheduler

    if not str(config.get("_class_name", "")).startswith("CogVideoX"):
        return config
    plain: Any = CogVideoXDDIMScheduler.from_config({**config, "rescale_betas_zero_snr": False})
    signal = plain.alphas_cumprod.double()
    betas = 1 - signal / torch.cat([signal.new_ones(1), signal[:-1]])
    return {**config, "trained_betas": betas.tolist()}
