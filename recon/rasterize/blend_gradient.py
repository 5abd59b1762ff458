"""Compute the analytic gradient of `recon.rasterize.blend`, back to front: `blend_backward`.

With v the image's gradient at a pixel, w_i = alpha_i T_i and S_i = sum_{j > i} w_j (c_j . v) +
T_final (background . v - v_alpha): ``dL/dalpha_i = T_i (c_i . v) - S_i / (1 - alpha_i)``. As
d ln(alpha) is a quadratic in the pixel's offset (dx, dy), six moments of g = dL/dalpha * alpha over the
pixels give the gradients of opacity, mean and conic.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from recon.rasterize.bins import (
    COLOR,
    MEAN_X,
    MEAN_Y,
    QUADRATIC_XX,
    STRIDE,
    TILE_HEIGHT,
    TILE_WIDTH,
)
from recon.rasterize.blend import HALF, MAX_ALPHA, clip, row_of
from recon.rasterize.projection import LOG2_ALPHA_MIN
from recon.rasterize.simd import WIDTH, any_lane, exp2, fma, iota, lane_sum, lane_sums, load, select, splat, store

MOMENTS = 8
"""Columns of a slot before the colours: sums of g, g dx, g dy, g dx^2, g dx dy, g dy^2, and two unused."""


def slot_width(channels: int) -> int:
    """Floats in the slot of one pair: the moments, and the colour gradients padded to whole lanes."""
    return MOMENTS + -(-channels // WIDTH) * WIDTH


@njit(forceinline=True)
def _block_gradient(at, log2_alpha, index, transmittance, stops, behind, incoming, record, v_colors):
    """g of eight pixels; updates T, S and the colour sums v_colors [8 D]."""
    active = (log2_alpha >= LOG2_ALPHA_MIN) & (load(stops, at) > np.float32(index))
    raw = exp2(log2_alpha)
    clamped = raw > MAX_ALPHA
    alpha = select(active, select(clamped, MAX_ALPHA, raw), 0.0)
    inverse = 1.0 / (1.0 - alpha)
    before = load(transmittance, at) * inverse
    weight = alpha * before
    color_dot = splat(np.float32(0.0))
    for d in range(incoming.shape[0]):
        v = load(incoming[d], at)
        color_dot = fma(v, record[COLOR + d], color_dot)
        store(v_colors, d * WIDTH, fma(v, weight, load(v_colors, d * WIDTH)))
    rest = load(behind, at)
    v_alpha = before * color_dot - rest * inverse
    store(behind, at, fma(color_dot, weight, rest))
    store(transmittance, at, before)
    return select(clamped, 0.0, alpha * v_alpha)


@njit(forceinline=True)
def _gaussian_gradient(box, left, top, index, transmittance, stops, behind, incoming, record, v_colors, slots, slot):
    x0, x1, y0, y1 = box
    mean_x, mean_y, xx = record[MEAN_X], record[MEAN_Y], record[QUADRATIC_XX]
    zero = splat(np.float32(0.0))
    g_sum, g_x, g_y, g_xx, g_xy, g_yy = zero, zero, zero, zero, zero, zero
    v_colors[:] = np.float32(0.0)
    for y in range(y0, y1):
        dy = np.float32(y) + HALF - mean_y
        start, end, linear, constant = row_of(record, x0, x1, y)
        row = (y - top) * STRIDE - left
        for x in range(start, end, WIDTH):
            dx = iota() + (np.float32(x) + HALF - mean_x)
            log2_alpha = fma(fma(dx, xx, linear), dx, constant)
            if not any_lane(log2_alpha >= LOG2_ALPHA_MIN):
                continue
            g = _block_gradient(row + x, log2_alpha, index, transmittance, stops, behind, incoming, record, v_colors)
            gx, gy = g * dx, g * dy
            g_sum, g_x, g_y = g_sum + g, g_x + gx, g_y + gy
            g_xx, g_xy, g_yy = fma(gx, dx, g_xx), fma(gx, dy, g_xy), fma(gy, dy, g_yy)
    store(slots, slot, lane_sums(g_sum, g_x, g_y, g_xx, g_xy, g_yy, zero, zero))
    for d in range(incoming.shape[0]):
        slots[slot + MOMENTS + d] = lane_sum(load(v_colors, d * WIDTH))


@njit(cache=True)
def _read_tile(left, top, transmittance, background, v_image, v_alpha, behind, incoming):
    """Fills incoming [D, pixels] and behind = T_final (background . v - v_alpha); makes T positive."""
    for y in range(top, min(top + TILE_HEIGHT, v_image.shape[0])):
        for x in range(left, min(left + TILE_WIDTH, v_image.shape[1])):
            at = (y - top) * STRIDE + x - left
            transmittance[at] = abs(transmittance[at])
            total = -v_alpha[y, x]
            for d in range(incoming.shape[0]):
                incoming[d, at] = v_image[y, x, d]
                total += v_image[y, x, d] * background[d]
            behind[at] = total * transmittance[at]


@njit(cache=True)
def _backward_tile(left, top, pair_rank, pair_slot, records, boxes, transmittance, stops, behind, incoming, slots):
    channels = incoming.shape[0]
    v_colors, width = np.empty(channels * WIDTH, np.float32), MOMENTS + (channels + WIDTH - 1) // WIDTH * WIDTH
    for index in range(pair_rank.shape[0] - 1, -1, -1):
        rank = pair_rank[index]
        _gaussian_gradient(
            clip(boxes, rank, left, top), left, top, index, transmittance, stops, behind, incoming, records[rank],
            v_colors, slots, np.int64(pair_slot[index]) * width,
        )  # fmt: skip


@njit(parallel=True, cache=True)
def blend_backward(bins, backgrounds, transmittances, stops, taken, v_images, v_alphas, slots):
    """Fills slots [P * slot_width] (zeros on entry) from v_images [C,H,W,D] and v_alphas [C,H,W]."""
    columns, per_view = bins.columns, bins.columns * bins.rows
    for item in prange(bins.tile_start.shape[0] - 1):
        tile = np.int64(item)
        view, top = tile // per_view, (tile % per_view) // columns * TILE_HEIGHT
        left = (tile % per_view) % columns * TILE_WIDTH
        start = bins.tile_start[tile]
        end = start + taken[tile]
        if end > start:
            transmittance = transmittances[tile].copy()
            behind = np.zeros(TILE_HEIGHT * STRIDE, np.float32)
            incoming = np.zeros((v_images.shape[3], TILE_HEIGHT * STRIDE), np.float32)
            _read_tile(left, top, transmittance, backgrounds[view], v_images[view], v_alphas[view], behind, incoming)
            _backward_tile(
                left, top, bins.pair_rank[start:end], bins.pair_slot[start:end], bins.records, bins.boxes,
                transmittance, stops[tile], behind, incoming, slots,
            )  # fmt: skip


@njit(forceinline=True)
def _sum_slots(slots, first, end, width):
    """Adds the slots first + 1 .. end - 1 to slot `first`, in their order."""
    for at in range(first * width, (first + 1) * width, WIDTH):
        for slot in range(1, end - first):
            store(slots, at, load(slots, at) + load(slots, at + slot * width))


@njit(parallel=True, cache=True)
def gather_gradients(ranks, first_slot, conics, opacities, slots, v_means2d, v_conics, v_colors, v_opacities):
    """Sums each Gaussian's slots; consumes them.

    Args (float32 unless noted):
        ranks [C,N] int32, -1 where not visible; first_slot [V+1] int32; conics [C,N,3]; opacities [N];
        slots [P * slot_width]; v_means2d [C,N,2], v_conics [C,N,3], v_colors [1,N,D] or [C,N,D],
        v_opacities [N]: zeros, added to.
    """
    channels = v_colors.shape[2]
    width = MOMENTS + (channels + WIDTH - 1) // WIDTH * WIDTH
    for item in prange(ranks.shape[1]):
        i = np.int64(item)
        for view in range(ranks.shape[0]):
            rank = ranks[view, i]
            if rank < 0 or first_slot[rank] == first_slot[rank + 1]:
                continue
            at = np.int64(first_slot[rank]) * width
            _sum_slots(slots, np.int64(first_slot[rank]), np.int64(first_slot[rank + 1]), width)
            a, b, c = conics[view, i, 0], conics[view, i, 1], conics[view, i, 2]
            v_opacities[i] += slots[at] / opacities[i]
            v_means2d[view, i, 0] = a * slots[at + 1] + b * slots[at + 2]
            v_means2d[view, i, 1] = b * slots[at + 1] + c * slots[at + 2]
            v_conics[view, i, 0] = -HALF * slots[at + 3]
            v_conics[view, i, 1] = -slots[at + 4]
            v_conics[view, i, 2] = -HALF * slots[at + 5]
            v_color = v_colors[min(view, v_colors.shape[0] - 1), i]
            for d in range(channels):
                v_color[d] += slots[at + MOMENTS + d]
