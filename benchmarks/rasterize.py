"""Compare the CPU rasteriser with a plain tiled one and the machine's arithmetic, both passes: `measure`.

    python -m benchmarks.rasterize [--limit N] [--repeats 5] [--threads 1 2] [--views 1 4]

Prints a table, then one line of JSON: ``speedup_over_tiled_torch`` (20,000 Gaussians, 128 px, one view, one thread),
``ours_ms`` and ``tiled_torch_ms`` of that case, ``image_difference`` (largest, between the two), ``peak_gflops`` of a
thread, ``parts_ms`` of that case, ``cases`` with all rows. Times are CPU milliseconds of all threads, the least of the
repeats, because other programs disturb them less than wall time; ``wall`` columns give wall time. ``roofline_ms`` is
what the additions and multiplications of the blended pixel-Gaussian pairs take at the peak, ``share`` that of the CPU
time; ``useful_lanes`` the share of the computed lanes that held such a pair.
"""

from __future__ import annotations

import json
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
    """Runs of each, after one to warm up; ours takes four times as many."""
    threads: tuple[int, ...] = (1, 2)
    """Threads of numba and torch, each >= 1; the plain torch runs on one."""
    views: tuple[int, ...] = (1, 4)
    """Views in a call, each in [1, 16]."""

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit is {self.limit}; it must be at least 1 case")
        if not self.threads or min(self.threads) < 1:
            raise ValueError(f"threads are {self.threads}; each must be at least 1")
        if not self.views or not all(1 <= count <= 16 for count in self.views):
            raise ValueError(f"views are {self.views}; each must lie in [1, 16]")


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


class Case:
    """Something to render, in one way or the other."""

    def __init__(self, count: int, size: int, views: int):
        import torch

        from recon.cameras import turntable

        self.leaves, cameras, self.size = scene(count), turntable(0.3, size), size
        self.viewmats, self.Ks = cameras.viewmats[:views], cameras.Ks[:views]
        self.background = torch.ones(views, 3)
        self.weights = torch.rand(views, size, size, 3, generator=torch.Generator().manual_seed(1))

    def ours(self) -> Any:
        """[C,S,S,3] by the CPU engine."""
        from recon.rasterize import rasterize

        cameras = {"viewmats": self.viewmats, "Ks": self.Ks, "width": self.size, "height": self.size}
        return rasterize(**self.leaves, **cameras, backgrounds=self.background, engine="cpu")[0]

    def plain(self) -> Any:
        """[1,S,S,3] of the first view by plain torch."""
        from benchmarks.tiled_torch import rasterize_tiled

        first = {"viewmat": self.viewmats[0], "K": self.Ks[0], "background": self.background[0]}
        return rasterize_tiled(**self.leaves, **first, size=self.size)[None]

    def forward(self) -> None:
        """One render without gradients."""
        import torch

        with torch.no_grad():
            self.ours()

    def backward(self, render: Callable[[], Any]) -> None:
        """One render and its gradients."""
        for leaf in self.leaves.values():
            leaf.grad = None
        image = render()
        (image * self.weights[: len(image)]).sum().backward()


def measure(count: int, size: int, views: int, threads: int, repeats: int, peak: float) -> dict[str, Any]:
    """One row of the table; plain torch only for one view on one thread, where the case is small enough."""
    import numba
    import torch

    from benchmarks.roofline import BACKWARD_FLOPS, FORWARD_FLOPS, count_pairs, part_times

    numba.set_num_threads(threads)
    torch.set_num_threads(threads)
    case = Case(count, size, views)
    forward, _ = best_times(case.forward, 4 * repeats)
    total, wall = best_times(lambda: case.backward(case.ours), 4 * repeats)
    useful, lanes = count_pairs(case.forward)
    least = useful * (FORWARD_FLOPS + BACKWARD_FLOPS) / peak / 1e6
    row = {
        "gaussians": count, "pixels": size, "views": views, "threads": threads, "ours_forward_ms": forward,
        "ours_ms": total, "ours_wall_ms": wall, "roofline_ms": least, "share": least / total,
        "useful_lanes": useful / max(lanes, 1), "pairs": useful,
        "parts_ms": part_times(lambda: case.backward(case.ours), 4 * repeats),
    }  # fmt: skip
    if views == threads == 1 and count * size * size <= MAX_TORCH_CASE:
        plain, plain_wall = best_times(lambda: case.backward(case.plain), repeats)
        with torch.no_grad():
            difference = float((case.ours() - case.plain()).abs().max())
        row |= {"tiled_torch_ms": plain, "tiled_torch_wall_ms": plain_wall, "speedup": plain / total}
        row["image_difference"] = difference
    return row


COLUMNS = {
    "gaussians": "d", "pixels": "d", "views": "d", "threads": "d", "ours_forward_ms": ".1f", "ours_ms": ".1f",
    "ours_wall_ms": ".1f", "tiled_torch_ms": ".0f", "speedup": ".0f", "roofline_ms": ".2f", "share": ".1%",
    "useful_lanes": ".0%",
}  # fmt: skip


def print_table(rows: list[dict[str, Any]], peak: float) -> None:
    """The rows for people."""
    from rich.console import Console
    from rich.table import Table

    title = f"Forward and backward, CPU milliseconds; a thread's peak is {peak:.0f} GFLOP/s"
    table = Table(*(name.replace("_", " ") for name in COLUMNS), title=title)
    for row in rows:
        table.add_row(*(format(row[name], form) if name in row else "-" for name, form in COLUMNS.items()))
    Console(width=140).print(table)
    parts = ", ".join(f"{name} {value:.2f}" for name, value in rows[0]["parts_ms"].items())
    print(f"Parts of the first row, ms: {parts}")


def run(options: Options) -> dict[str, Any]:
    """Measures, prints the table and returns the figures of the JSON line."""
    import numba

    from benchmarks.roofline import peak_gflops

    numba.set_num_threads(1)
    peak = peak_gflops()
    cases = list(dict.fromkeys(CASES))[: options.limit]
    modes = [(views, threads) for threads in options.threads for views in options.views]
    rows = [measure(*case, *mode, options.repeats, peak) for case in cases for mode in modes]
    print_table(rows, peak)
    head = rows[0]
    return {
        "speedup_over_tiled_torch": head.get("speedup"),
        "ours_ms": head["ours_ms"],
        "tiled_torch_ms": head.get("tiled_torch_ms"),
        "image_difference": max(row.get("image_difference", 0.0) for row in rows),
        "peak_gflops": peak,
        "parts_ms": head["parts_ms"],
        "cases": rows,
    }


def main() -> None:
    """Command line."""
    import tyro

    print(json.dumps(run(tyro.cli(Options, description=__doc__))))


if __name__ == "__main__":
    main()
