"""Count the evaluations of a network where they happen: `counted`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def counted(
    networks: nn.Module | Sequence[nn.Module], num_samples: int, steps: int
) -> Iterator[dict[str, int]]:  # fmt: skip
    """Count the forwards of a network, or of several that share the work, while the block runs.

    Yields a dict that is filled when the block ends: "steps" as given, and "forwards", the rows that
    went through them per sample; with classifier-free guidance that is twice the steps.
    """
    rows = 0

    def count(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal rows
        inputs = args[0] if args else kwargs.get("sample", kwargs.get("hidden_states"))
        rows += inputs.shape[0] if isinstance(inputs, Tensor) else num_samples

    evaluations: dict[str, int] = {}
    several = [networks] if isinstance(networks, nn.Module) else networks
    handles = [network.register_forward_pre_hook(count, with_kwargs=True) for network in several]
    try:
        yield evaluations
    finally:
        for handle in handles:
            handle.remove()
        evaluations.update(steps=steps, forwards=rows // num_samples)
