"""Train a LoRA of Wan image-to-video on turntables, for turns that are even and full: `wan_lora`.

Hu et al. 2021, "LoRA": the network is frozen, and each linear layer W of its attention and feed-forward parts gets
alpha / rank * B A beside it, B zero at first. The loss is flow matching (Lipman et al. 2023),

    z = (1 - s) x + s n,   F(z, s) ~ n - x,   s = shift t / (1 + (shift - 1) t), t uniform in (0, 1).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.config import Precision, TrainConfig, VideoConfig
from model.pocket.data import Batch
from model.pocket.losses import Terms, normal
from model.training import Recipe, Setting, autocast
from model.video_models import WAN_FRAMES
from model.views import VIEWS_FILE, latent_views
from model.wan import WanVideoModel
from model.weights import license_of
from recon.user_error import UserError

NAME, FILE = "wan-lora", "lora.safetensors"
TRAINED = re.compile(r"^blocks\.\d+\.(attn[12]\.(to_[qkv]|to_out\.0)|ffn\.net\.(0\.proj|2))$")
"""The linear layers that get a LoRA, by their names in diffusers."""


class LowRank(nn.Module):
    """alpha / rank * B A of one linear layer, added to its output.

    Args:
        layer: which is frozen. rank: >= 1. alpha: > 0.
    """

    def __init__(self, layer: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.scale = alpha / rank
        self.down = nn.Parameter(torch.randn(rank, layer.in_features) / rank)
        self.up = nn.Parameter(torch.zeros(layer.out_features, rank))
        layer.register_forward_hook(self._add)

    def _add(self, _layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        low = nn.functional.linear(inputs[0].to(self.down.dtype), self.down)
        return output + (self.scale * nn.functional.linear(low, self.up)).to(output.dtype)


class WanLoraLoss(nn.Module):
    """Flow matching on whole turns; the text is dropped for a share of the samples."""

    def __init__(self, model: WanVideoModel, config: TrainConfig, rank: int, alpha: float) -> None:
        super().__init__()
        network: Any = model.network
        self.config, self.families = config, [model]  # in a list: it is no module, and holds these modules
        self.frozen = nn.ModuleDict(dict(model.parts.networks)).requires_grad_(False)
        layers: dict[str, Any] = {name: layer for name, layer in network.named_modules() if TRAINED.fullmatch(name)}
        self.names = list(layers)
        self.parts = [LowRank(layer, rank, alpha) for layer in layers.values()]
        self.low_rank = nn.ModuleList(self.parts)

    def forward(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Terms]:
        """The loss, mean over the batch."""
        frames = torch.cat([batch.frames, batch.frames[:, :1]], 1)[..., :3]  # the last frame is the first view again
        videos = frames.permute(0, 1, 4, 2, 3).float() / 127.5 - 1
        kept = torch.rand(len(batch), generator=generator) >= self.config.text_dropout
        captions = [caption if keep else "" for caption, keep in zip(batch.captions, kept.tolist(), strict=True)]
        errors = [self._error(*pair, generator) for pair in zip(videos, captions, strict=True)]
        return torch.stack(errors).mean(), {}

    def _error(self, video: Tensor, caption: str, generator: torch.Generator) -> Tensor:
        """Of one turn [F,3,S,S] in [-1, 1]."""
        model = self.families[0]
        with torch.no_grad():
            clean = model.encode(video)[None]
            conditioned = model.condition(video[:1], model.prompts([caption] if caption else [""]), [0])
        time = torch.rand((), generator=generator)
        level = (model.shift * time / (1 + (model.shift - 1) * time)).to(clean.device)
        noise = normal(clean, generator)
        with autocast(clean.device, self.config.precision):
            prediction = conditioned.predict((1 - level) * clean + level * noise, 1000 * level)
        given = 1 if model.files["index"].get("expand_timesteps") else 0  # TI2V's first latent is the picture's
        return (prediction.float() - (noise - clean))[:, given:].square().mean()

    def tensors(self) -> dict[str, Tensor]:
        """The LoRA in the common form, under the names of Wan's own code."""
        found: dict[str, Tensor] = {}
        for name, part in zip(self.names, self.parts, strict=True):
            key = f"diffusion_model.{WanVideoModel.lora_name(name)}"
            down, up = (value.detach().half().cpu().contiguous() for value in (part.down, part.up))
            found |= {f"{key}.lora_A.weight": down, f"{key}.lora_B.weight": up}
            found[f"{key}.alpha"] = torch.tensor(float(part.scale * len(part.down)))
        return found


def frozen_precision(precision: Precision) -> Precision:
    """What the frozen network is held in: 14B parameters in float32 would fill a card by themselves."""
    return "bfloat16" if precision == "auto" else precision


def wan_lora(setting: Setting) -> Recipe:
    """The LoRA of the folder `wan`; rank and alpha are `train.lora_rank` and `train.lora_alpha`.

    Raises:
        UserError: for the two networks of Wan 2.2 A14B.
    """
    from safetensors.torch import save_file

    base, config = setting.weights / "wan", setting.config
    settings = VideoConfig(
        model=str(base), device="cpu", dtype=frozen_precision(config.precision), guidance_scale=1.0,
        frames=WAN_FRAMES[0], template="{prompt}",
    )  # fmt: skip
    model = WanVideoModel.load(base, settings)
    if "transformer_2" in model.parts.networks:
        raise UserError(f"{base} is Wan 2.2 A14B, whose two networks want a LoRA each; take Wan 2.1 I2V or TI2V-5B")
    loss = WanLoraLoss(model, config, config.lora_rank, config.lora_alpha)

    def save(folder: Path) -> None:
        (folder / NAME).mkdir(parents=True, exist_ok=True)
        save_file(loss.tensors(), folder / NAME / FILE)
        views = latent_views(WAN_FRAMES[0])  # as it was trained: even steps, counter-clockwise
        declared = {"azimuths": views.azimuths, "fit": views.fit, "exact": True}
        (folder / NAME / VIEWS_FILE).write_text(json.dumps(declared))
        (folder / NAME / "README.md").write_text(
            f"---\nlicense: {license_of(base)}\n---\nA LoRA of Wan image-to-video.\n"
        )

    return Recipe(loss=loss, save=save, blocks=_blocks(model))


def _blocks(model: WanVideoModel) -> Sequence[nn.Module]:
    network: Any = model.network
    return list(network.blocks)
