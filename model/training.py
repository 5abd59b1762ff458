"""The training loop: a plain function of a model and a loss, resumable to the step."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from model.config import TrainConfig


def autocast() -> torch.autocast:
    """bfloat16 where the CPU has instructions for it (AMX or AVX512-BF16), float32 elsewhere.

    Without them bfloat16 is emulated: a step of the pocket image model took 18 times as long on an AVX2 core.
    """
    fast = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return torch.autocast("cpu", torch.bfloat16, enabled=fast)


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up, constant, linear decay to zero at `num_steps`."""
    warmup = min(1.0, (step + 1) / max(config.warmup_steps, 1))
    decay = max(config.num_steps * config.decay_share, 1)
    return config.learning_rate * min(warmup, max(0.0, (config.num_steps - step) / decay), 1.0)


class Ema:
    """An exponential moving average of a model's trainable parameters; the first steps are averaged faster."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.shadow = {k: p.detach().clone() for k, p in model.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the average towards the model's parameters."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        parameters = dict(model.named_parameters())
        shadows = list(self.shadow.values())
        torch._foreach_lerp_(shadows, [parameters[k].detach() for k in self.shadow], weight)

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Overwrite the model's parameters by the average."""
        parameters = dict(model.named_parameters())
        for name, value in self.shadow.items():
            parameters[name].copy_(value)


def train(
    model: nn.Module,
    loss_fn: Callable[[int, torch.Generator], tuple[Tensor, dict[str, float]]],
    config: TrainConfig,
    folder: Path,
    on_save: Callable[[int], None] | None = None,
) -> nn.Module:
    """Minimise `loss_fn(step, generator)` over the parameters of `model` that require gradients.

    A checkpoint in `folder` is resumed exactly: weights, average, optimiser, step; the generator is
    seeded by (seed, step), so the data do not depend on where the run was cut. Returns the model
    with its averaged weights.

    Raises:
        FloatingPointError: when the loss is not finite; the last checkpoint stays as it was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, betas=config.betas, weight_decay=config.weight_decay, foreach=True)
    ema = Ema(model, config.ema_decay)
    start = _resume(folder, model, ema, optimizer)
    log = (folder / "log.jsonl").open("a")
    began, sums = time.time(), {}
    for step in range(start, config.num_steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config)
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        loss, terms = loss_fn(step, generator)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"loss is {loss.item()} at step {step}; resume from {folder} with a lower rate")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
        optimizer.step()
        ema.update(model, step)
        for name, value in {"loss": loss.item(), "grad_norm": norm.item(), **terms}.items():
            sums[name] = sums.get(name, 0.0) + value
        if (step + 1) % config.log_every == 0:
            row = {name: round(value / config.log_every, 5) for name, value in sums.items()}
            log.write(json.dumps({"step": step + 1, "seconds": round(time.time() - began, 1), **row}) + "\n")
            log.flush()
            sums = {}
        if (step + 1) % config.save_every == 0 or step + 1 == config.num_steps:
            _save(folder, model, ema, optimizer, step + 1)
            if on_save:
                on_save(step + 1)
    log.close()
    ema.copy_to(model)
    return model


def _save(folder: Path, model: nn.Module, ema: Ema, optimizer: torch.optim.Optimizer, step: int) -> None:
    state = {"model": model.state_dict(), "ema": ema.shadow, "optimizer": optimizer.state_dict(), "step": step}
    torch.save(state, folder / "checkpoint.tmp")
    (folder / "checkpoint.tmp").replace(folder / "checkpoint.pt")


def _resume(folder: Path, model: nn.Module, ema: Ema, optimizer: torch.optim.Optimizer) -> int:
    path = folder / "checkpoint.pt"
    if not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    ema.shadow = state["ema"]
    optimizer.load_state_dict(state["optimizer"])
    return state["step"]
