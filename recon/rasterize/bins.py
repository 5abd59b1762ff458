"""Sort Gaussians by depth and list which of them each tile blends, front to back: `build_bins`.

A Gaussian's *rank* is its place in the depth order of its view, counted through all views. A *pair* is a
(tile, Gaussian) overlap; pairs are listed tile by tile in the order of ranks. Each pair owns a *slot*, and the
slots of one Gaussian are neighbours: gradients are written per slot and summed per Gaussian without atomics.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit, prange

TILE_WIDTH_BITS, TILE_HEIGHT_BITS = 6, 4
TILE_WIDTH, TILE_HEIGHT = 1 << TILE_WIDTH_BITS, 1 << TILE_HEIGHT_BITS
PADDING = 8
"""Columns beside a tile into which the last block of lanes of a row may run."""
STRIDE = TILE_WIDTH + PADDING

MEAN_X, MEAN_Y, QUADRATIC_XX, QUADRATIC_XY, QUADRATIC_YY, LOG2_OPACITY, COLOR = range(7)
"""Columns of a record. log2 alpha = LOG2_OPACITY + XX dx^2 + XY dx dy + YY dy^2; colours follow."""
DIGIT_BITS = 11
DIGIT_MASK = (1 << DIGIT_BITS) - 1
"""Three digits of the radix sort hold the 32 bits of a depth."""
LOG2_E = np.float32(1.4426950408889634)


class Bins(NamedTuple):
    """Depth-sorted Gaussians of all views and their tiles (V visible rows, P pairs, B tiles)."""

    columns: int  # tiles in a row of one view
    rows: int
    records: np.ndarray  # [V, 6+D] float32
    boxes: np.ndarray  # [V,4] int32: x0, x1, y0, y1 in pixels, end excluded
    tile_start: np.ndarray  # [B+1] int64, pairs of each tile
    pair_rank: np.ndarray  # [P] int32
    pair_slot: np.ndarray  # [P] int32
    first_slot: np.ndarray  # [V+1] int32
    ranks: np.ndarray  # [C,N] int32, -1 where not visible


@njit(forceinline=True)
def _sort_pass(shift, keys, ids, keys_out, ids_out, offsets):
    """One stable pass of the radix sort by the digit at `shift`; False if all digits are equal, and nothing is done."""
    offsets[:] = 0
    for i in range(keys.shape[0]):
        offsets[((keys[i] >> shift) & DIGIT_MASK) + 1] += 1
    if offsets[((keys[0] >> shift) & DIGIT_MASK) + 1] == keys.shape[0]:
        return False
    for digit in range(1, offsets.shape[0]):
        offsets[digit] += offsets[digit - 1]
    for i in range(keys.shape[0]):
        digit = (keys[i] >> shift) & DIGIT_MASK
        place = offsets[digit]
        offsets[digit] = place + 1
        keys_out[place], ids_out[place] = keys[i], ids[i]
    return True


@njit(parallel=True, cache=True)
def sort_by_depth(depths, ids, ranks, counts):
    """ids[c, :counts[c]] = the visible Gaussians of depths [C,N] front to back, ties by index; radix sort.

    Positive floats sort as their bits do. ranks [C,N] is set to -1.
    """
    for item in prange(depths.shape[0]):
        view = np.int64(item)
        bits = depths[view].view(np.uint32)
        keys, front = np.empty(bits.shape[0] + 1, np.uint32), np.empty(bits.shape[0] + 1, np.int32)
        count = 0
        for i in range(bits.shape[0]):
            ranks[view, i] = -1
            keys[count], front[count] = bits[i], i
            count += bits[i] != 0
        counts[view] = count
        keys, front = keys[:count], front[:count]
        keys_out, back = np.empty(count, np.uint32), np.empty(count, np.int32)
        offsets = np.empty(DIGIT_MASK + 2, np.int64)
        for digit in range(3 if count > 1 else 0):
            if _sort_pass(np.uint32(digit * DIGIT_BITS), keys, front, keys_out, back, offsets):
                keys, keys_out = keys_out, keys
                front, back = back, front
        ids[view, :count] = front


@njit(forceinline=True)
def _tile_span(box):
    """First and past-the-last tile column and row of a box; none if the box is empty."""
    left, right = np.int64(box[0]) >> TILE_WIDTH_BITS, (np.int64(box[1]) + TILE_WIDTH - 1) >> TILE_WIDTH_BITS
    top, bottom = np.int64(box[2]) >> TILE_HEIGHT_BITS, (np.int64(box[3]) + TILE_HEIGHT - 1) >> TILE_HEIGHT_BITS
    if box[1] <= box[0] or box[3] <= box[2]:
        return left, left, top, top
    return left, right, top, bottom


@njit(forceinline=True)
def _span(centre, reach, size):
    """First and past-the-last pixel whose centre lies within `reach` of `centre`, with a hair's slack."""
    slack = np.float32(0.01) + np.float32(1e-4) * reach
    low = np.ceil(centre - reach - np.float32(0.5) - slack)
    high = np.floor(centre + reach + np.float32(0.5) + slack)
    return np.int32(min(max(low, np.float32(0.0)), size)), np.int32(min(max(high, np.float32(0.0)), size))


@njit(forceinline=True)
def _fill_record(record, mean2d, conic, log2_opacity, color):
    record[MEAN_X], record[MEAN_Y] = mean2d[0], mean2d[1]
    record[QUADRATIC_XX] = np.float32(-0.5) * LOG2_E * conic[0]
    record[QUADRATIC_XY] = -LOG2_E * conic[1]
    record[QUADRATIC_YY] = np.float32(-0.5) * LOG2_E * conic[2]
    record[LOG2_OPACITY] = log2_opacity
    for d in range(color.shape[0]):
        record[COLOR + d] = color[d]


@njit(forceinline=True)
def _count_tiles(counts, columns, box):
    left, right, top, bottom = _tile_span(box)
    for row in range(top, bottom):
        for column in range(left, right):
            counts[row * columns + column] += 1


@njit(parallel=True, cache=True)
def pack(ids, view_start, projected, log2_opacities, colors, width, height, records, boxes, ranks, tile_counts):
    """Fills records, boxes and ranks [C,N] in depth order and counts the pairs of each tile [C, tiles]."""
    means2d, conics, reaches = projected
    columns = (width + TILE_WIDTH - 1) // TILE_WIDTH
    for item in prange(ids.shape[0]):
        view = np.int64(item)
        start = view_start[view]
        means_view, conics_view, reaches_view = means2d[view], conics[view], reaches[view]
        colors_view, counts, ranks_view = colors[min(view, colors.shape[0] - 1)], tile_counts[view], ranks[view]
        for place in range(view_start[view + 1] - start):
            i, box = ids[view, place], boxes[start + place]
            ranks_view[i] = start + place
            mean2d, reach = means_view[i], reaches_view[i]
            _fill_record(records[start + place], mean2d, conics_view[i], log2_opacities[i], colors_view[i])
            box[0], box[1] = _span(mean2d[0], reach[0], np.float32(width))
            box[2], box[3] = _span(mean2d[1], reach[1], np.float32(height))
            _count_tiles(counts, columns, box)


@njit(parallel=True, cache=True)
def list_pairs(columns, view_start, boxes, tile_start, pair_rank, pair_slot, first_slot):
    """Fills the pair lists; `tile_start` holds the first pair of each tile."""
    per_view = (tile_start.shape[0] - 1) // (view_start.shape[0] - 1)
    for item in prange(view_start.shape[0] - 1):
        view = np.int64(item)
        fill = tile_start[view * per_view : (view + 1) * per_view].copy()
        slot = tile_start[view * per_view]
        for rank in range(view_start[view], view_start[view + 1]):
            first_slot[rank] = slot
            left, right, top, bottom = _tile_span(boxes[rank])
            for row in range(top, bottom):
                for column in range(left, right):
                    tile = row * columns + column
                    pair_rank[fill[tile]], pair_slot[fill[tile]] = rank, slot
                    fill[tile] += 1
                    slot += 1


def _starts(counts: np.ndarray) -> np.ndarray:
    """[0, counts[0], counts[0] + counts[1], ...]."""
    starts = np.zeros(counts.size + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    return starts


def build_bins(projected, depths, log2_opacities, colors, width: int, height: int) -> Bins:
    """Sorts the visible Gaussians of each view by depth (ties by index) and lists them per tile.

    Args (float32 arrays):
        projected: (means2d [C,N,2], conics [C,N,3], reaches [C,N,2]); depths [C,N], 0 where not visible;
        log2_opacities [N]; colors [1,N,D] or [C,N,D]; width, height in pixels.
    """
    views, count = depths.shape
    ids, ranks = np.empty((views, count), np.int32), np.empty((views, count), np.int32)
    counts = np.empty(views, np.int64)
    sort_by_depth(depths, ids, ranks, counts)
    view_start = _starts(counts)
    visible = int(view_start[-1])
    columns, rows = -(-width // TILE_WIDTH), -(-height // TILE_HEIGHT)
    boxes = np.empty((visible, 4), np.int32)
    records = np.empty((visible, COLOR + colors.shape[2]), np.float32)
    tile_counts = np.zeros((views, columns * rows), np.int64)
    pack(ids, view_start, projected, log2_opacities, colors, width, height, records, boxes, ranks, tile_counts)
    tile_start = _starts(tile_counts)
    pairs = int(tile_start[-1])
    pair_rank, pair_slot = np.empty(pairs, np.int32), np.empty(pairs, np.int32)
    first_slot = np.empty(visible + 1, np.int32)
    first_slot[visible] = pairs
    list_pairs(columns, view_start, boxes, tile_start, pair_rank, pair_slot, first_slot)
    return Bins(columns, rows, records, boxes, tile_start, pair_rank, pair_slot, first_slot, ranks)
