"""The CPU rasteriser beside a plain tiled torch implementation, forward and backward, one view.

    python -m benchmarks.rasterize [--limit N] [--repeats 5] [--threads 1]

Prints a table, then one line of JSON: ``speedup_over_tiled_torch`` (20,000 Gaussians, 128 px), ``ours_ms`` and
``tiled_torch_ms`` of that case, ``image_difference`` (largest, between the two), ``cases`` with all rows.
Times are CPU milliseconds of all threads, the least of the repeats, because other programs disturb them less
than wall time; with one thread on a free machine both are the same. ``wall`` columns give wall time.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

CASES = [(20_000, 128), *((count, size) for size in (64, 128, 256, 512) for count in (5_000, 20_000, 50_000))]
"""Gaussians and pixels; the case of the headline first."""
MAX_TORCH_CASE = 20_000 * 256 * 256
"""Larger products of Gaussians and pixels are not run in plain torch: it keeps every pixel's every weight."""


@dataclass(kw_only=True, slots=True)
class Options:
    """What to time."""

    limit: int | None = None
    """At most this many cases."""
    repeats: int = 5
    """Runs of each, after one to warm up; ours takes ten times as many."""
    threads: int = 1
    """Threads of numba and torch."""


def scene(count: int) -> dict[str, Any]:
    """A fitted object's likeness: a thin lumpy shell over 60% of the frame, flat Gaussians, bimodal opacity."""
    import torch

    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)
    lumps = 1 + 0.05 * torch.sin(4 * directions[:, :1]) * torch.cos(5 * directions[:, 1:2])
    scales = torch.exp(0.4 * torch.randn(count, 3, generator=generator)) * (0.9 / count**0.5)
    scales[:, 0] *= 0.3
    opaque = torch.rand(count, generator=generator) < 0.6
    opacities = torch.where(opaque, 0.95, 0.15) * torch.rand(count, generator=generator).sqrt()
    quats, colors = torch.randn(count, 4, generator=generator), torch.rand(count, 3, generator=generator)
    means = 0.93 * directions * lumps
    leaves = {"means": means, "quats": quats, "scales": scales, "opacities": opacities, "colors": colors}
    return {name: leaf.requires_grad_() for name, leaf in leaves.items()}


def best_times(run: Callable[[], None], repeats: int) -> tuple[float, float]:
    """Least CPU and least wall milliseconds of `repeats` runs after one warm-up."""
    run()
    cpu, wall = [], []
    for _ in range(repeats):
        before = time.process_time(), time.perf_counter()
        run()
        cpu.append(time.process_time() - before[0])
        wall.append(time.perf_counter() - before[1])
    return 1000 * min(cpu), 1000 * min(wall)


def measure(count: int, size: int, repeats: int) -> dict[str, Any]:
    """One row of the table: our times, and those of plain torch where the case is small enough."""
    import torch

    from benchmarks.tiled_torch import rasterize_tiled
    from recon.cameras import turntable
    from recon.rasterize import rasterize

    leaves, cameras = scene(count), turntable(0.3, size)
    viewmats, Ks = cameras.viewmats[:1], cameras.Ks[:1]
    background, weights = torch.ones(1, 3), torch.rand(size, size, 3, generator=torch.Generator().manual_seed(1))

    def ours() -> Any:
        return rasterize(
            **leaves, viewmats=viewmats, Ks=Ks, width=size, height=size, backgrounds=background, engine="cpu"
        )[0][0]

    def torch_only() -> Any:
        return rasterize_tiled(**leaves, viewmat=viewmats[0], K=Ks[0], size=size, background=background[0])

    def with_backward(render: Callable[[], Any]) -> None:
        for leaf in leaves.values():
            leaf.grad = None
        (render() * weights).sum().backward()

    with torch.no_grad():
        forward, _ = best_times(ours, 10 * repeats)
    total, wall = best_times(lambda: with_backward(ours), 10 * repeats)
    row = {"gaussians": count, "pixels": size, "ours_forward_ms": forward, "ours_ms": total, "ours_wall_ms": wall}
    if count * size * size <= MAX_TORCH_CASE:
        plain, plain_wall = best_times(lambda: with_backward(torch_only), repeats)
        with torch.no_grad():
            difference = float((ours() - torch_only()).abs().max())
        row |= {"tiled_torch_ms": plain, "tiled_torch_wall_ms": plain_wall, "speedup": plain / total}
        row["image_difference"] = difference
    return row


def print_table(rows: list[dict[str, Any]], threads: int) -> None:
    """The rows for people; the arithmetic is forward and backward of one view unless a column says otherwise."""
    from rich.console import Console
    from rich.table import Table

    columns = ["gaussians", "pixels", "ours_forward_ms", "ours_ms", "ours_wall_ms", "tiled_torch_ms", "speedup"]
    table = Table(*columns, title=f"Forward and backward of one view, {threads} thread(s), CPU milliseconds")
    for row in rows:
        cells = [row.get(name, "-") for name in columns]
        table.add_row(*(f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in cells))
    Console(width=120).print(table)


def run(options: Options) -> dict[str, Any]:
    """Measures, prints the table and returns the figures of the JSON line."""
    if options.limit is not None and options.limit < 1:
        raise ValueError(f"limit is {options.limit}; it must be at least 1 case")
    os.environ["NUMBA_NUM_THREADS"] = str(options.threads)
    import torch

    torch.set_num_threads(options.threads)
    cases = list(dict.fromkeys(CASES))[: options.limit]
    rows = [measure(count, size, options.repeats) for count, size in cases]
    print_table(rows, options.threads)
    head = rows[0]
    return {
        "speedup_over_tiled_torch": head["speedup"],
        "ours_ms": head["ours_ms"],
        "tiled_torch_ms": head["tiled_torch_ms"],
        "image_difference": max(row.get("image_difference", 0.0) for row in rows),
        "threads": options.threads,
        "cases": rows,
    }


def main() -> None:
    """Command line."""
    import tyro

    print(json.dumps(run(tyro.cli(Options, description=__doc__))))


if __name__ == "__main__":
    main()
