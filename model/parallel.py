"""Spread a loss over workers and gather its tensors again: `spread`, `whole`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

Parallel = Literal["ddp", "fsdp"]


@dataclass(kw_only=True, slots=True, frozen=True)
class World:
    """Which of how many workers this is; more than one need torch.distributed to be set up."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def gather(self, value: Any) -> list[Any]:
        """Every worker's value, by rank; every worker calls it."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values


def spread(loss: nn.Module, mode: Parallel, blocks: Sequence[nn.Module], world: World) -> nn.Module:
    """`loss` on this worker's device, its gradients averaged over all workers.

    "ddp" keeps a copy on each worker; "fsdp" (FSDP2) cuts parameters, gradients and optimiser state into
    shards, block by block, and works with one worker too.
    """
    loss = loss.to(world.device)
    if mode == "fsdp":
        from torch.distributed.fsdp import fully_shard

        for block in blocks:
            fully_shard(block)
        fully_shard(loss, reshard_after_forward=False)
        return loss
    if world.size == 1:
        return loss
    from torch.nn.parallel import DistributedDataParallel

    return DistributedDataParallel(loss, find_unused_parameters=True)


def unsynchronised(loss: nn.Module, last: bool) -> AbstractContextManager:
    """Around every micro-batch but the `last`: gradients are added up locally, and exchanged once."""
    if isinstance(loss, nn.parallel.DistributedDataParallel) and not last:
        return loss.no_sync()
    if hasattr(loss, "set_requires_gradient_sync"):
        loss.set_requires_gradient_sync(last)  # pyright: ignore[reportCallIssue]
    return nullcontext()


def reshard(loss: nn.Module) -> None:
    """Free what FSDP2 has gathered of parameters: once they are overwritten it would compute with old values."""
    for module in loss.modules():
        if hasattr(module, "reshard"):
            module.reshard()  # pyright: ignore[reportCallIssue]


def bare(loss: nn.Module) -> nn.Module:
    """The module inside DistributedDataParallel; any other as it is."""
    return loss.module if isinstance(loss, nn.parallel.DistributedDataParallel) else loss


def recompute(blocks: Sequence[nn.Module]) -> None:
    """Let these blocks keep no activations, but compute them again in the backward pass."""
    from torch.utils.checkpoint import checkpoint

    for block in blocks:
        forward = block.forward
        block.forward = lambda *a, forward=forward, **k: checkpoint(forward, *a, use_reentrant=False, **k)


def whole(tensor: Tensor) -> Tensor:
    """A tensor or all shards of one, on the CPU; every worker calls it."""
    found = tensor.detach()
    return (found.full_tensor() if hasattr(found, "full_tensor") else found).cpu()  # pyright: ignore


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that lies here."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor  # pyright: ignore[reportAttributeAccessIssue]


@torch.no_grad()
def assign(target: Tensor, value: Tensor) -> None:
    """Overwrite `target`, sharded or not, by a whole tensor."""
    if hasattr(target, "device_mesh"):
        from torch.distributed.tensor import distribute_tensor

        value = distribute_tensor(value.to(target.device), target.device_mesh, target.placements)  # pyright: ignore
    target.copy_(value.to(target.dtype))
