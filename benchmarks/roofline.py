"""Measure what blending would cost if the machine did nothing but its arithmetic: `peak_gflops`, `part_times`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numba import get_num_threads, njit, prange

from recon.rasterize import bins as binning
from recon.rasterize import blend, blend_gradient, projection, projection_gradient
from recon.rasterize.bins import MEAN_X, QUADRATIC_XX, STRIDE, TILE_HEIGHT, TILE_WIDTH
from recon.rasterize.blend import HALF, clip, row_of
from recon.rasterize.projection import LOG2_ALPHA_MIN
from recon.rasterize.simd import WIDTH, fma, lane_sum, splat

FORWARD_FLOPS, BACKWARD_FLOPS = 26, 51
"""Additions and multiplications (a fused one counts two) of a pixel-Gaussian pair with three colours, counted in the
code: offset 1, quadratic 4, power of two 13, then forward transmittance 2 and colours 6; backward weight 4, colours 12,
gradient of alpha 5 and g 1, moments 11. Comparisons and selections do not count."""
PARTS = {
    "project": (projection, "project_forward"),
    "sort and bin": (binning, "build_bins"),
    "blend": (blend, "blend_forward"),
    "blend backward": (blend_gradient, "blend_backward"),
    "gather": (blend_gradient, "gather_gradients"),
    "project backward": (projection_gradient, "project_backward"),
}


@njit(parallel=True)
def _fma_loop(rounds, out):
    for item in prange(out.shape[0]):
        x, y = splat(np.float32(0.999)), splat(np.float32(0.001))
        a, b, c, d, e, f, g, h, i, j = x, y, x, y, x, y, x, y, x, y
        for _ in range(rounds):
            a, b, c, d, e = fma(a, x, y), fma(b, x, y), fma(c, x, y), fma(d, x, y), fma(e, x, y)
            f, g, h, i, j = fma(f, x, y), fma(g, x, y), fma(h, x, y), fma(i, x, y), fma(j, x, y)
        out[item] = lane_sum(a + b + c + d + e + f + g + h + i + j)


def peak_gflops(repeats: int = 20, rounds: int = 200_000) -> float:
    """GFLOP/s that one thread reaches when it only multiplies and adds in the engine's vectors; the best repeat."""
    out = np.zeros(get_num_threads(), np.float32)
    _fma_loop(1, out)
    seconds = []
    for _ in range(repeats):
        started = time.process_time()
        _fma_loop(rounds, out)
        seconds.append(time.process_time() - started)
    return len(out) * rounds * 10 * 2 * WIDTH / min(seconds) / 1e9


@njit
def _count_pairs(bins, stops, taken):
    """Pixels that took a Gaussian, and lanes that computed one, over all tiles after the forward pass."""
    columns, per_view = bins.columns, bins.columns * bins.rows
    useful, lanes = 0, 0
    for tile in range(taken.shape[0]):
        top, left = (tile % per_view) // columns * TILE_HEIGHT, (tile % per_view) % columns * TILE_WIDTH
        for index in range(taken[tile]):
            rank = bins.pair_rank[bins.tile_start[tile] + index]
            record = bins.records[rank]
            x0, x1, y0, y1 = clip(bins.boxes, rank, left, top)
            for y in range(y0, y1):
                start, end, linear, constant = row_of(record, x0, x1, y)
                lanes += (max(end - start, 0) + WIDTH - 1) // WIDTH * WIDTH
                for x in range(start, end):
                    dx = np.float32(x) + HALF - record[MEAN_X]
                    reached = (dx * record[QUADRATIC_XX] + linear) * dx + constant >= LOG2_ALPHA_MIN
                    useful += reached and stops[tile, (y - top) * STRIDE + x - left] > index
    return useful, lanes


def count_pairs(render: Callable[[], Any]) -> tuple[int, int]:
    """(pixel-Gaussian pairs that were blended, lanes that were computed for them) of one forward render."""
    seen: list[Any] = []

    def spy(bins, backgrounds, images, alphas, transmittances, stops, taken, weights):
        forward(bins, backgrounds, images, alphas, transmittances, stops, taken, weights)
        seen.append(_count_pairs(bins, stops, taken))

    forward = blend.blend_forward
    with _replaced(blend, "blend_forward", spy):
        render()
    return int(sum(pair[0] for pair in seen)), int(sum(pair[1] for pair in seen))


def part_times(run: Callable[[], None], repeats: int) -> dict[str, float]:
    """CPU milliseconds of each part of `run`, the least of the repeats; "rest" is torch and Python between them."""
    found: dict[str, list[float]] = {name: [] for name in (*PARTS, "rest")}
    for _ in range(repeats):
        spent = dict.fromkeys(PARTS, 0.0)
        with _timed(spent):
            started = time.process_time()
            run()
            total = time.process_time() - started
        for name, seconds in (spent | {"rest": total - sum(spent.values())}).items():
            found[name].append(1000 * seconds)
    return {name: round(min(values), 3) for name, values in found.items()}


@contextmanager
def _timed(spent: dict[str, float]) -> Iterator[None]:
    """Adds the CPU seconds of each part's kernel to `spent`."""

    def wrapped(name: str, kernel: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            started = time.process_time()
            result = kernel(*args)
            spent[name] += time.process_time() - started
            return result

        return call

    kernels = {name: getattr(module, attribute) for name, (module, attribute) in PARTS.items()}
    for name, (module, attribute) in PARTS.items():
        setattr(module, attribute, wrapped(name, kernels[name]))
    try:
        yield
    finally:
        for name, (module, attribute) in PARTS.items():
            setattr(module, attribute, kernels[name])


@contextmanager
def _replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)
