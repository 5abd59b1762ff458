"""Train by a plain function of a loss and a stream of batches, resumable to the step: `Training`.

It runs by itself on one process; Ray Train only starts it on many and feeds it (`factory.training.finetune.worker`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from model.config import Precision, Share, TrainConfig
from model.muon import Muon
from model.parallel import Parallel, World, assign, bare, local, recompute, reshard, spread, unsynchronised, whole
from recon.user_error import UserError

Row = dict[str, float]
"""What one step reports: step, loss, gradient norm, rate, seconds, those of waiting, terms of the loss."""


class NotFinite(FloatingPointError):
    """The loss is no number any more: going on would be wrong."""


@dataclass(kw_only=True, slots=True)
class Setting:
    """What a target is built from."""

    weights: Path
    """Local folder of weight folders."""
    config: TrainConfig
    captions: Sequence[str]
    """Every caption of the training assets, once."""
    size: int
    """Side of the frames in pixels."""
    scratch: Path
    """A folder of this process for files on the way."""


@dataclass(kw_only=True, slots=True)
class Recipe:
    """A target, built: a loss whose `requires_grad` parameters are trained, and what is done with the result."""

    loss: nn.Module
    """(batch, generator) -> (loss [], terms)."""
    save: Callable[[Path], None]
    """Writes the weights as folders into a folder."""
    blocks: Sequence[nn.Module] = ()
    """Modules that are sharded and recomputed each as one."""
    gather: Callable[[Iterator[Any]], None] | None = None
    """Takes from the stream, before the first step, what is to be known of the whole set."""
    gathered: tuple[str, ...] = ()
    """Prefixes of the parameters that `gather` sets; checkpoints keep them beside the trained ones."""
    feed: Callable[[Share, World, int], Iterator[Any]] | None = None
    """Batches from a step on that take the place of the stream, once `gather` has run."""
    sheet: Callable[[Any], np.ndarray] | None = None
    """Pictures uint8 [B,N,S,S,3|4] made for a batch."""


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The precision of a forward pass.

    "auto" is bfloat16 where the device has instructions for it (on CPUs AMX or AVX512-BF16), float32 elsewhere:
    emulated, a step of the pocket image model took 18 times as long on an AVX2 core.
    """
    fast = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported()
    enabled = fast if precision == "auto" else precision != "float32"
    return torch.autocast(device.type, torch.float16 if precision == "float16" else torch.bfloat16, enabled=enabled)


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up, constant, linear decay to zero at `num_steps`."""
    warmup = min(1.0, (step + 1) / max(config.warmup_steps, 1))
    decay = max(config.num_steps * config.decay_share, 1)
    return config.learning_rate * min(warmup, max(0.0, (config.num_steps - step) / decay), 1.0)


def generator_of(seed: int, *place: int) -> torch.Generator:
    """A generator that depends on the seed and a place (step, rank, ...) alone."""
    number = int(np.random.SeedSequence([seed, *place]).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(number >> 1)


def mean_row(rows: Sequence[Row]) -> Row:
    """The mean of every figure over the rows that have it."""
    names = sorted({name for row in rows for name in row})
    return {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}


def optimizer(config: TrainConfig, parameters: list[Tensor], parallel: Parallel) -> torch.optim.Optimizer:
    """The optimiser of a run; its rate is set at every step.

    Raises:
        UserError: for one that cannot update shards of parameters.
    """
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, betas=config.betas, weight_decay=config.weight_decay, fused=True)
    if parallel == "fsdp":
        raise UserError("muon needs whole matrices; take --parallel ddp, or --train.optimizer adamw")
    return Muon(parameters, betas=config.betas, weight_decay=config.weight_decay)


class Training:
    """All that a run is: weights, their average, optimiser and step.

    Args:
        recipe: what is trained.
        share: see `Share`.
    """

    def __init__(
        self, recipe: Recipe, config: TrainConfig, share: Share, world: World | None = None, parallel: Parallel = "ddp"
    ) -> None:
        self.recipe, self.config, self.share, self.world = recipe, config, share, world or World()
        if config.recompute:
            recompute(recipe.blocks)
        self.loss = spread(recipe.loss, parallel, recipe.blocks, self.world)
        named = dict(bare(self.loss).named_parameters())
        self.parameters = {name: p for name, p in named.items() if p.requires_grad}
        self.kept = self.parameters | {n: p for n, p in named.items() if n.startswith(recipe.gathered)}
        self.optimizer = optimizer(config, list(self.parameters.values()), parallel)
        self.average = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.scaler = torch.amp.GradScaler(self.world.device.type, enabled=config.precision == "float16")
        self.step = 0

    def advance(self, batches: Iterator[Any]) -> Row:
        """One optimiser step.

        Raises:
            NotFinite: on every worker, when any worker's loss is no number; nothing has changed then.
        """
        rate = learning_rate(self.step, self.config)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        began, rows = time.perf_counter(), []
        for part in range(self.share.rounds):
            asked = time.perf_counter()
            batch = next(batches)
            waited = time.perf_counter() - asked
            generator = generator_of(self.config.seed, self.step, self.world.rank, part)
            torch.manual_seed(generator.initial_seed())  # for layers that draw by themselves, as dropout
            with unsynchronised(self.loss, part + 1 == self.share.rounds):
                loss, terms = self.loss(batch.to(self.world.device), generator)
                self.scaler.scale(loss / self.share.rounds).backward()
            rows.append({"loss": loss.item(), "waited": waited, **terms})
        mean = mean_row([row for part in self.world.gather(rows) for row in part])
        if not np.isfinite(mean["loss"]):
            raise NotFinite(f"the loss is {mean['loss']} at step {self.step}")
        norm = self._update()
        if not np.isfinite(norm) and not self.scaler.is_enabled():
            raise NotFinite(f"the gradient's norm is {norm} at step {self.step}")
        self.step += 1
        seconds = time.perf_counter() - began
        timing = {"seconds": seconds, "waited": mean["waited"] * self.share.rounds}
        return mean | {"step": self.step, "grad_norm": norm, "rate": rate} | timing

    def _update(self) -> float:
        self.scaler.unscale_(self.optimizer)
        found = nn.utils.clip_grad_norm_(list(self.parameters.values()), self.config.max_grad_norm, foreach=True)
        norm = float(whole(found))
        if np.isfinite(norm) or self.scaler.is_enabled():
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self._average()
        return norm

    @torch.no_grad()
    def _average(self) -> None:
        """Move the average towards the weights; the first steps are averaged faster."""
        weight = 1 - min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        shadows = [local(value) for value in self.average.values()]
        torch._foreach_lerp_(shadows, [local(p.detach()) for p in self.parameters.values()], weight)

    @contextmanager
    def averaged(self):
        """The averaged weights in the place of the last ones, for as long as the context lasts."""
        last = {name: p.detach().clone() for name, p in self.parameters.items()}
        self._overwrite(self.average)
        try:
            yield
        finally:
            self._overwrite(last)

    @torch.no_grad()
    def _overwrite(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            local(parameter).copy_(local(values[name]))
        reshard(self.loss)

    def validate(self, batches: Sequence[tuple[int, Any]]) -> Row:
        """The averaged weights' loss on fixed batches with fixed noise, over all workers.

        Args:
            batches: this worker's, as many as every other has, by their number among all; one that several workers
                have counts once.
        """
        rows = {}
        modes = {module: module.training for module in self.loss.modules()}
        self.loss.eval()
        with self.averaged(), torch.no_grad():
            for number, batch in batches:
                generator = generator_of(self.config.seed, 1 << 40, number)
                loss, terms = self.loss(batch.to(self.world.device), generator)
                rows[number] = {"loss": loss.item(), **terms}
        for module, mode in modes.items():
            module.training = mode
        every = {number: row for part in self.world.gather(rows) for number, row in part.items()}
        return mean_row([every[number] for number in sorted(every)])

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Weights, average and optimiser as whole tensors by name; every worker calls it, only the first keeps them."""
        slots = {
            f"{key}.{name}": value if value.ndim else value.reshape(1)
            for name, parameter in self.parameters.items()
            for key, value in self.optimizer.state.get(parameter, {}).items()
        }
        slots |= {f"scaler.{k}": torch.tensor([float(v)]) for k, v in self.scaler.state_dict().items()}
        parts = {"weights": self.kept, "average": self.average, "optimizer": slots}
        return {part: self._whole(tensors) for part, tensors in parts.items()}

    def _whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        gathered = ((name, whole(tensor)) for name, tensor in tensors.items())
        return {name: tensor for name, tensor in gathered if self.world.rank == 0}

    def load(self, state: dict[str, dict[str, Tensor]], step: int) -> None:
        """Go on from `state`.

        Raises:
            UserError: when it is of another model.
        """
        load_weights(self.kept, state["weights"])
        load_weights(self.average, state["average"])
        moments = state["optimizer"]
        for key, value in moments.items():
            slot, _, name = key.partition(".")
            parameter = self.parameters.get(name)
            if parameter is None:
                continue
            if slot == "step":
                self.optimizer.state[parameter][slot] = value.reshape(()).to(self.world.device)
            else:
                self.optimizer.state[parameter][slot] = torch.zeros_like(parameter)
                assign(self.optimizer.state[parameter][slot], value)
        scaling = {k: type(v)(moments[f"scaler.{k}"].item()) for k, v in self.scaler.state_dict().items()
                   if f"scaler.{k}" in moments}  # fmt: skip
        if scaling:
            self.scaler.load_state_dict(scaling)
        self.step = step


def load_weights(targets: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Overwrite tensors by name.

    Raises:
        UserError: when a name or a shape differs: the values are another model's.
    """
    for name in sorted(targets.keys() ^ values.keys()):
        raise UserError(f"the checkpoint is another model's: only one of the two has {name}; take another --out")
    for name, target in targets.items():
        if target.shape != values[name].shape:
            raise UserError(f"the checkpoint is another model's: {name} is {tuple(values[name].shape)} there and "
                            f"{tuple(target.shape)} here; take another --out")  # fmt: skip
        assign(target, values[name])


def train(
    training: Training, batches: Iterator[Any], on_step: Callable[[Row], None], on_save: Callable[[], None]
) -> None:
    """Take steps until `config.num_steps`; `on_save` is called every `save_every` steps and after the last.

    Raises:
        NotFinite: see `Training.advance`.
    """
    config = training.config
    while training.step < config.num_steps:
        on_step(training.advance(batches))
        if training.step % config.save_every == 0 or training.step == config.num_steps:
            on_save()
