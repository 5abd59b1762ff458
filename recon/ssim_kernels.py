"""Compare pictures by windowed moments, eight numbers of a row at a time, and back: `compare`, `spread`.

A picture [H,W,3] lies in rows of `stride_of(W)` float32, colours side by side, so that a neighbouring pixel is 3
numbers away. What lies in a row behind the picture counts for nothing. Sums by colour are kept for `PERIOD` numbers of
a row, of which the one at i belongs to colour i % 3.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from recon.ms_ssim import C1, C2, WINDOW
from recon.rasterize.simd import WIDTH, fma, iota, load, select, splat, store

PERIOD = 3 * WIDTH
REACH = 3 * (WINDOW - 1)
"""Numbers of a row that a window reaches beyond its first."""
ONE, TWO, C_LUMINANCE, C_CONTRAST = np.float32(1.0), np.float32(2.0), np.float32(C1), np.float32(C2)


def stride_of(width: int) -> int:
    """Numbers in a row that holds `width` pixels and what the last windows reach beyond them."""
    return -(-(3 * width + REACH + WIDTH) // WIDTH) * WIDTH


@njit(forceinline=True)
def _along(row, at, taps):
    """The weighted sum along a row, of eight windows from `at` on."""
    total = splat(np.float32(0.0))
    for t in range(WINDOW):
        total = fma(load(row, at + 3 * t), taps[t], total)
    return total


@njit(forceinline=True)
def _down(x, y, top, stride, taps, rows):
    """Weighted sums down the columns of x, x^2 and x y, from row `top` on, into three rows."""
    mean, square, product = rows
    for at in range(0, stride, WIDTH):
        first, second, third = splat(np.float32(0.0)), splat(np.float32(0.0)), splat(np.float32(0.0))
        for t in range(WINDOW):
            here = load(x, (top + t) * stride + at)
            weighted = here * taps[t]
            first = first + weighted
            second, third = fma(weighted, here, second), fma(weighted, load(y, (top + t) * stride + at), third)
        store(mean, at, first)
        store(square, at, second)
        store(product, at, third)


@njit(cache=True)
def compare(x, target, shape, taps, last, sums, gradients):
    """Add the similarities of one scale to `sums` [PERIOD], and write their gradients by x's moments.

    Args:
        x: the picture; target: (picture y, its windowed mean and variance), all in rows of `stride`.
        shape: (H, numbers in a row of the picture, stride).
        last: whether the luminance counts, as at the coarsest scale.
        gradients: [3 * (H + 10) * stride] zeros; by mean, square and product, moved by 10 rows and `REACH` numbers.
    """
    y, mean_y, variance_y = target
    height, used, stride = shape
    size = stride + WIDTH
    rows = np.zeros(size, np.float32), np.zeros(size, np.float32), np.zeros(size, np.float32)
    count, plane = used - REACH, (height + WINDOW - 1) * stride
    for top in range(height - WINDOW + 1):
        _down(x, y, top, stride, taps, rows)
        for at in range(0, count, WIDTH):
            mean, square, product = _along(rows[0], at, taps), _along(rows[1], at, taps), _along(rows[2], at, taps)
            other = load(mean_y, top * stride + at)
            above = (product - mean * other) * TWO + C_CONTRAST
            below = ONE / (square - mean * mean + load(variance_y, top * stride + at) + C_CONTRAST)
            similar = above * below
            by_product, by_square = below * TWO, similar * below * np.float32(-1.0)
            by_mean = (mean * similar - other) * below * TWO
            if last:
                level = ONE / (mean * mean + other * other + C_LUMINANCE)
                luminance = (mean * other * TWO + C_LUMINANCE) * level
                by_mean = by_mean * luminance + similar * (other - mean * luminance) * level * TWO
                by_square, by_product, similar = by_square * luminance, by_product * luminance, similar * luminance
            inside, zero = iota() < np.float32(count - at), np.float32(0.0)
            place = (top + WINDOW - 1) * stride + REACH + at
            store(gradients, place, select(inside, by_mean, zero))
            store(gradients, plane + place, select(inside, by_square, zero))
            store(gradients, 2 * plane + place, select(inside, by_product, zero))
            store(sums, at % PERIOD, load(sums, at % PERIOD) + select(inside, similar, zero))


@njit(cache=True)
def spread(x, y, shape, taps, factors, gradients, out):
    """out [H * stride] += the gradient by the picture x, of those by its moments that `compare` wrote.

    Args:
        y, shape, gradients: as of `compare`. factors: [PERIOD], what the sums count in the loss.
    """
    height, used, stride = shape
    size, plane = stride + WIDTH, (height + WINDOW - 1) * stride
    rows = np.zeros(size, np.float32), np.zeros(size, np.float32), np.zeros(size, np.float32)
    for top in range(height):
        for number in range(3):
            for at in range(0, stride, WIDTH):
                total = splat(np.float32(0.0))
                for t in range(WINDOW):
                    total = fma(load(gradients, number * plane + (top + t) * stride + at), taps[t], total)
                store(rows[number], at, total)
        for at in range(0, used, WIDTH):
            place = top * stride + at
            found = fma(_along(rows[1], at, taps) * TWO, load(x, place), _along(rows[0], at, taps))
            found = fma(_along(rows[2], at, taps), load(y, place), found)
            store(out, place, fma(found, load(factors, at % PERIOD), load(out, place)))


@njit(cache=True)
def halve(picture, shape, out, stride):
    """out: means of 2 x 2 pixels of a picture of even sides, in rows of `stride`."""
    height, used, wide = shape
    for y in range(height // 2):
        for x in range(0, used // 2, 3):
            for c in range(3):
                at = 2 * y * wide + 2 * x + c
                total = picture[at] + picture[at + 3] + picture[at + wide] + picture[at + wide + 3]
                out[y * stride + x + c] = np.float32(0.25) * total


@njit(cache=True)
def double(gradients, stride, shape, out):
    """out += what `halve` hands on of gradients in rows of `stride`; `shape` is out's."""
    height, used, wide = shape
    for y in range(height // 2):
        for x in range(0, used // 2, 3):
            for c in range(3):
                value, at = np.float32(0.25) * gradients[y * stride + x + c], 2 * y * wide + 2 * x + c
                out[at] += value
                out[at + 3] += value
                out[at + wide] += value
                out[at + wide + 3] += value
