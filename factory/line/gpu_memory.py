"""Measure what a row takes of a GPU's memory, and how many rows an actor's part of it holds: `GpuMemory`."""

from __future__ import annotations

from types import TracebackType

SPARE = 0.85
"""Share of the free memory that rows may take: allocators round up, and rows differ."""


class GpuMemory:
    """Use as a context around one row; afterwards `taken` are its bytes beyond what was allocated before.

    Args:
        share: of the GPU that the actor reserves; above 1 as 1, since rows lie on one GPU.
    """

    def __init__(self, share: float) -> None:
        self.share = min(share, 1.0)
        self.taken = 0

    def __enter__(self) -> GpuMemory:
        import torch

        self._before = torch.cuda.memory_allocated() if torch.cuda.is_available() else 0
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        import torch

        if torch.cuda.is_available():
            self.taken = max(0, torch.cuda.max_memory_allocated() - self._before)

    def rows(self) -> int:
        """How many such rows fit together, at least 1: in the actor's share of the card, and in what is free there."""
        import torch

        if not torch.cuda.is_available() or not self.taken:
            return 1
        free, total = torch.cuda.mem_get_info()
        mine = self.share * total - torch.cuda.memory_reserved()
        return max(1, int(SPARE * min(free, mine) / self.taken))
