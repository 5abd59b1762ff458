"""What a GPU makes of the generators at their published sizes with random weights: `adapters`, `training`.

Seconds and memory do not depend on what the weights are. A generator that the card cannot hold is skipped by name.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.full_size import FULL_SIZES, TINY, FullSize
from benchmarks.full_training import step_of
from recon.memory import PeakMemory

ROOM = 6 << 30
"""Bytes beyond the weights without which no step is tried; the largest step needs so much (benchmarks.model_sizes)."""
STEPS = 3
"""That are timed, after one that warms up."""
BFLOAT16 = ("wan", "droplet3d")


def adapters(tiny: bool, ends: float = float("inf")) -> list[dict[str, Any]]:
    """Seconds of a sampler step and of decoding, and peak memory, of each generator; one sample, guidance included.

    Args:
        tiny: a small network on the CPU instead. ends: of `time.monotonic`, when no other generator is begun.
    """
    rows = []
    for row in (TINY,) if tiny else FULL_SIZES:
        if time.monotonic() > ends:
            rows.append({"part": f"{row.name}, step", "skipped": "the time is up"})
        elif needed := lacking(row, tiny):
            rows.append({"part": f"{row.name}, step", "skipped": needed})
        else:
            rows += measured(row, torch.device("cpu" if tiny else "cuda"))
            free()
    return rows


def lacking(row: FullSize, tiny: bool) -> str:
    """Why a card cannot hold a generator; empty where it can."""
    if tiny:
        return ""
    model = row.build(sampled_only=True)
    networks = model.parts.networks.values() if row.family else [model]
    needed = sum(p.nbytes for part in networks for p in part.parameters()) + ROOM
    there = torch.cuda.mem_get_info()[0]
    return "" if needed <= there else f"needs about {needed / 2**30:.0f} GiB, {there / 2**30:.0f} are free"


def measured(row: FullSize, device: torch.device) -> list[dict[str, Any]]:
    """A generator's step, and the decoding of its video where it makes one."""
    dtype = torch.bfloat16 if row.family in BFLOAT16 else torch.float16
    model = row.build(dtype if device.type == "cuda" else torch.float32, device, sampled_only=True)
    with torch.no_grad():
        steps = STEPS if device.type == "cuda" else 1
        rows = [timed(f"{row.name}, step", lambda: row.step(model), device, steps)]
        if row.family:
            latents = torch.zeros(model.latent_shape(row.size), device=device)
            rows.append(timed(f"{row.name}, decoding", lambda: model.decode(latents), device, steps=1))
    return rows


def timed(part: str, run: Callable[[], Any], device: torch.device, steps: int = STEPS) -> dict[str, Any]:
    """Seconds of one call, the mean of `steps` after a first one, and the peak above what was there before."""
    run()
    synchronise(device)
    started = time.perf_counter()
    with PeakMemory(device) as memory:
        for _ in range(steps):
            run()
        synchronise(device)
    return {"part": part, "seconds": (time.perf_counter() - started) / steps, "peak_bytes": memory.bytes}


def training(tiny: bool) -> list[dict[str, Any]]:
    """A step that trains Stable Video Diffusion's temporal layers under autocast, activations recomputed or not."""
    row = TINY if tiny else next(one for one in FULL_SIZES if one.name == "Stable Video Diffusion")
    device = torch.device("cpu" if tiny else "cuda")
    if not tiny and torch.cuda.mem_get_info()[0] < 40 << 30:
        return [{"part": "training step", "skipped": "needs about 40 GiB free"}]
    rows = []
    for recomputed in (True, False):
        kind = "recomputed" if recomputed else "kept"
        try:
            rows.append(timed(f"training step, activations {kind}", step_of(row, device, recomputed), device, steps=1))
        except torch.OutOfMemoryError:
            rows.append({"part": f"training step, activations {kind}", "skipped": "does not fit the memory"})
        free()
    return rows


def synchronise(device: torch.device) -> None:
    """Wait for what a GPU still has to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def free() -> None:
    """Give back what the last model held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
