"""Train the generators at their published sizes with random weights, as `im3d finetune` does: `in_training`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from transformers import BatchEncoding

from benchmarks.full_size import FULL_SIZES, TINY, FullSize
from factory.training.finetune.targets import TARGETS
from model.config import Precision
from model.latent_training import I2VGenXLLoss, StableVideoLoss, SV3DLoss
from model.parallel import recompute
from model.pocket.data import Batch
from model.pocket.losses import SCHEDULE
from model.temporal import freeze_spatial
from model.wan import TEXT_TOKENS, WanVideoModel
from model.wan_lora_training import WanLoraLoss, frozen_precision

TRAINED = {"I2VGen-XL": "i2vgen-xl", "Stable Video Diffusion": "svd", "SV3D_u": "sv3d", "Wan 2.1 I2V 14B": "wan-lora",
           "Wan 2.2 TI2V 5B": "wan-lora"}  # fmt: skip
"""Which target of `im3d finetune` trains which generator."""
_LOSSES: dict[str, Any] = {"i2vgen-xl": I2VGenXLLoss, "svd": StableVideoLoss, "sv3d": SV3DLoss}


@dataclass(kw_only=True)
class InTraining:
    """A target of `im3d finetune` at its published size."""

    loss: nn.Module
    batch: Batch
    """One random turntable."""
    trained: list[nn.Parameter]

    def step(self, optimizer: torch.optim.Optimizer, generator: torch.Generator) -> None:
        """One step of the optimiser.

        Raises:
            FloatingPointError: if the loss is no number.
        """
        value, _ = self.loss(self.batch, generator)
        value.backward()
        if not torch.isfinite(value):
            raise FloatingPointError(f"the loss of a training step is {float(value)}")
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


@dataclass
class _Tokens:
    """A tokenizer that finds no word: every text is as many zeros as its encoder takes."""

    model_max_length: int

    def __call__(self, texts: Sequence[str], **_: Any) -> BatchEncoding:
        ids = torch.zeros(len(texts), self.model_max_length, dtype=torch.long)
        return BatchEncoding({"input_ids": ids, "attention_mask": torch.ones_like(ids)})


def trainable() -> list[FullSize]:
    """The generators that a target trains."""
    return [row for row in FULL_SIZES if row.name in TRAINED]


def in_training(
    row: FullSize, device: torch.device, recomputed: bool = True, precision: Precision = "bfloat16"
) -> InTraining:
    """What the target of a generator trains, at the settings of the target.

    Args:
        recomputed: whether blocks keep no activations.
    """
    target = "svd" if row is TINY else TRAINED[row.name]
    config = replace(TARGETS[target].train, precision=precision)
    files = row.files | {"tokenizer": _Tokens(TEXT_TOKENS if target == "wan-lora" else 77), "scheduler": SCHEDULE}
    row = replace(row, files=files)
    if target == "wan-lora":
        model = row.build(getattr(torch, frozen_precision(precision)), device)
        with device:
            loss: nn.Module = WanLoraLoss(model, config, config.lora_rank, config.lora_alpha)
        blocks, views = list(model.network.blocks), row.frames - 1
    else:
        model = row.build(torch.float32, device)
        unet = model.network.train().requires_grad_(True)
        freeze_spatial(unet, "i2vgen-xl" if target == "i2vgen-xl" else "svd")
        loss = _LOSSES[target](model, config)
        blocks, views = [*unet.down_blocks, unet.mid_block, *unet.up_blocks], row.frames
    if recomputed:
        recompute(blocks)
    frames = torch.randint(256, (1, views, row.size, row.size, 4), dtype=torch.uint8, device=device)
    batch = Batch(frames=frames, captions=["a chair"], azimuths=torch.zeros(1, views), elevations=torch.zeros(1))
    return InTraining(loss=loss, batch=batch, trained=[p for p in loss.parameters() if p.requires_grad])


def step_of(row: FullSize, device: torch.device, recomputed: bool) -> Callable[[], None]:
    """One optimiser step of `in_training`."""
    made, generator = in_training(row, device, recomputed), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(made.trained, lr=1e-5)
    return lambda: made.step(optimizer, generator)


@contextmanager
def losses_without_values() -> Iterator[None]:
    """For the meta device, which has no autocast, and no values to tell noise levels or padding apart by."""

    def mean(prediction: Tensor, target: Tensor, _timesteps: Tensor) -> tuple[Tensor, dict[str, float]]:
        return (prediction.float() - target).square().mean(), {}

    def text(model: Any, prompts: Sequence[str]) -> Tensor:
        return torch.zeros(len(prompts), TEXT_TOKENS, 4096, device=model.device, dtype=model.dtype)

    with ExitStack() as stack:
        for module in ("model.latent_training", "model.wan_lora_training"):
            stack.enter_context(mock.patch(f"{module}.autocast", return_value=nullcontext()))
        stack.enter_context(mock.patch("model.latent_training.diffusion_loss", mean))
        stack.enter_context(mock.patch.object(WanVideoModel, "_text", text))
        yield
