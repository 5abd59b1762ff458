"""Set where a training runs, and on how many workers: `WorkersConfig`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from recon.user_error import UserError


@dataclass(kw_only=True, slots=True)
class WorkersConfig:
    """Where and on how many workers a run trains."""

    workers: int = 1
    """Training processes, >= 1."""
    gpu: bool = False
    """Give each worker a GPU."""
    threads: int = 1
    """CPU threads of each worker, >= 1."""
    readers: int = 1
    """Reading processes for each worker, >= 1."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """A copy of the model on each worker, or shards of it (FSDP2)."""
    max_failures: int = 3
    """How often the workers are started again after one has died; -1: without limit."""
    address: str = "local"
    """'local' starts Ray on this machine; 'auto' or a ray:// address joins a cluster."""

    def __post_init__(self) -> None:
        if min(self.workers, self.threads, self.readers) < 1:
            raise UserError("workers, threads and readers must be at least 1")
        if self.max_failures < -1:
            raise UserError(f"max_failures is {self.max_failures}; it must be at least -1")
