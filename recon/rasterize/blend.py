"""Blend a tile's Gaussians front to back, eight pixels of a row at a time: `blend_forward`.

Per pixel, as in gsplat 1.5.3: ``alpha = min(0.999, opacity exp(-sigma))``, dropped below 1/255;
``T' = T (1 - alpha)``; the Gaussian that would bring T' to 1e-4 or less is not blended and ends the pixel;
``color = sum alpha T c + T_final background``, ``alpha image = 1 - T_final``. Pixel centres lie at +0.5.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from recon.rasterize.bins import (
    COLOR,
    LOG2_OPACITY,
    MEAN_X,
    MEAN_Y,
    QUADRATIC_XX,
    QUADRATIC_XY,
    QUADRATIC_YY,
    STRIDE,
    TILE_HEIGHT,
    TILE_WIDTH,
)
from recon.rasterize.projection import LOG2_ALPHA_MIN
from recon.rasterize.simd import WIDTH, any_lane, exp2, fma, iota, lane_max, load, select, splat, store

MAX_ALPHA = np.float32(0.999)
MIN_TRANSMITTANCE = np.float32(1e-4)
NEVER = np.float32(1e30)
"""Stop index of a pixel that no Gaussian has closed."""
HALF = np.float32(0.5)


@njit(forceinline=True)
def _row_span(x0, x1, mean_x, quadratic, linear, constant):
    """The columns of [x0, x1) where quadratic dx^2 + linear dx + constant may reach the threshold."""
    discriminant = linear * linear - np.float32(4.0) * quadratic * (constant - LOG2_ALPHA_MIN)
    if discriminant < 0:
        return x0, x0
    centre = mean_x - HALF - HALF * linear / quadratic
    half_width = -HALF * np.sqrt(discriminant) / quadratic + np.float32(0.02)
    low, high = max(centre - half_width, np.float32(x0)), min(centre + half_width, np.float32(x1))
    return np.int64(low), min(np.int64(high) + 1, np.int64(x1))


@njit(forceinline=True)
def row_of(record, x0, x1, y):
    """The columns [start, end) of [x0, x1) that a Gaussian may reach in row y, and the terms linear and constant in
    dx of its log2 alpha there."""
    dy = np.float32(y) + HALF - record[MEAN_Y]
    linear = record[QUADRATIC_XY] * dy
    constant = record[LOG2_OPACITY] + record[QUADRATIC_YY] * dy * dy
    if x1 - x0 > WIDTH:
        x0, x1 = _row_span(x0, x1, record[MEAN_X], record[QUADRATIC_XX], linear, constant)
    return x0, x1, linear, constant


@njit(forceinline=True)
def clip(boxes, rank, left, top):
    """The Gaussian's box within the tile at (left, top)."""
    return (
        max(np.int64(boxes[rank, 0]), left),
        min(np.int64(boxes[rank, 1]), left + TILE_WIDTH),
        max(np.int64(boxes[rank, 2]), top),
        min(np.int64(boxes[rank, 3]), top + TILE_HEIGHT),
    )


@njit(forceinline=True)
def _blend_block(at, log2_alpha, index, transmittance, stops, planes, record):
    """Blends one Gaussian into eight pixels; returns its weights there."""
    before = load(transmittance, at)
    active = (before > 0.0) & (log2_alpha >= LOG2_ALPHA_MIN)
    if not any_lane(active):
        return splat(np.float32(0.0))
    alpha = exp2(log2_alpha)
    alpha = select(active, select(alpha > MAX_ALPHA, MAX_ALPHA, alpha), 0.0)
    after = before - before * alpha
    closing = active & (after <= MIN_TRANSMITTANCE)
    weight = select(closing, 0.0, before * alpha)
    store(transmittance, at, select(closing, -1.0 * before, after))
    if any_lane(closing):
        store(stops, at, select(closing, np.float32(index), load(stops, at)))
    for d in range(planes.shape[0]):
        store(planes[d], at, fma(weight, record[COLOR + d], load(planes[d], at)))
    return weight


@njit(forceinline=True)
def _blend_gaussian(box, left, top, index, transmittance, stops, planes, record):
    """Blends one Gaussian into its box; returns the largest of its weights."""
    x0, x1, y0, y1 = box
    mean_x, xx = record[MEAN_X], record[QUADRATIC_XX]
    most = splat(np.float32(0.0))
    for y in range(y0, y1):
        start, end, linear, constant = row_of(record, x0, x1, y)
        row = (y - top) * STRIDE - left
        for x in range(start, end, WIDTH):
            dx = iota() + (np.float32(x) + HALF - mean_x)
            log2_alpha = fma(fma(dx, xx, linear), dx, constant)
            weight = _blend_block(row + x, log2_alpha, index, transmittance, stops, planes, record)
            most = select(weight > most, weight, most)
    return lane_max(most)


@njit(cache=True)
def _forward_tile(left, top, pair_rank, pair_slot, records, boxes, transmittance, stops, planes, weights):
    """Blends a tile. Moves the pairs that some pixel took to the front of the lists; returns their number. Writes every
    slot's largest weight."""
    taken = 0
    for pair in range(pair_rank.shape[0]):
        rank, slot = pair_rank[pair], pair_slot[pair]
        box = clip(boxes, rank, left, top)
        weights[slot] = _blend_gaussian(box, left, top, taken, transmittance, stops, planes, records[rank])
        if weights[slot] > 0.0:
            pair_rank[taken], pair_slot[taken] = rank, slot
            taken += 1
    return taken


@njit(cache=True)
def _write_tile(left, top, transmittance, planes, background, image, alpha):
    """Copies a tile's planes into image [H,W,D] and alpha [H,W] over the background [D]."""
    for y in range(top, min(top + TILE_HEIGHT, alpha.shape[0])):
        for x in range(left, min(left + TILE_WIDTH, alpha.shape[1])):
            at = (y - top) * STRIDE + x - left
            remaining = abs(transmittance[at])
            alpha[y, x] = np.float32(1.0) - remaining
            for d in range(planes.shape[0]):
                image[y, x, d] = planes[d, at] + remaining * background[d]


@njit(cache=True)
def _open_tile(left, width, transmittance, stops):
    """A tile before blending; columns outside the image or the tile are closed from the start."""
    transmittance[:] = np.float32(1.0)
    stops[:] = NEVER
    for y in range(TILE_HEIGHT):
        for x in range(min(TILE_WIDTH, width - left), STRIDE):
            transmittance[y * STRIDE + x] = np.float32(-1.0)
            stops[y * STRIDE + x] = np.float32(0.0)


@njit(parallel=True, cache=True)
def blend_forward(bins, backgrounds, images, alphas, transmittances, stops, taken, weights):
    """Renders all tiles of all views.

    Args:
        bins: `recon.rasterize.bins.Bins`; its pair lists are reordered.
        backgrounds [C,D] float32; images [C,H,W,D] and alphas [C,H,W] float32, written;
        transmittances, stops [B, TILE_HEIGHT * STRIDE] float32 and taken [B] int64, written for the backward pass:
        final transmittance (negative where closed), index of the pair that closed a pixel, pairs in use;
        weights [P] float32, written: the largest blending weight of every slot.
    """
    columns, per_view = bins.columns, bins.columns * bins.rows
    for item in prange(bins.tile_start.shape[0] - 1):
        tile = np.int64(item)
        view, top = tile // per_view, (tile % per_view) // columns * TILE_HEIGHT
        left = (tile % per_view) % columns * TILE_WIDTH
        planes = np.zeros((images.shape[3], TILE_HEIGHT * STRIDE), np.float32)
        _open_tile(left, images.shape[2], transmittances[tile], stops[tile])
        start, end = bins.tile_start[tile], bins.tile_start[tile + 1]
        taken[tile] = _forward_tile(
            left, top, bins.pair_rank[start:end], bins.pair_slot[start:end], bins.records, bins.boxes,
            transmittances[tile], stops[tile], planes, weights,
        )  # fmt: skip
        _write_tile(left, top, transmittances[tile], planes, backgrounds[view], images[view], alphas[view])


@njit(cache=True)
def gather_weights(ranks, first_slot, weights, most):
    """most [C,N] = the largest of each Gaussian's slots' `weights` [P], 0 where it is not visible."""
    for view in range(ranks.shape[0]):
        for i in range(ranks.shape[1]):
            rank, largest = ranks[view, i], np.float32(0.0)
            if rank >= 0:
                for slot in range(first_slot[rank], first_slot[rank + 1]):
                    largest = max(largest, weights[slot])
            most[view, i] = largest
