"""Depth order and tile lists: which Gaussians each tile blends, front to back.

A Gaussian's *rank* is its place in the depth order of its view, counted through all views. A *pair* is a
(tile, Gaussian) overlap; pairs are listed tile by tile in the order of ranks. Each pair owns a *slot*, and the
slots of one Gaussian are neighbours: gradients are written per slot and summed per Gaussian without atomics.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit, prange

TILE_WIDTH = 64
TILE_HEIGHT = 16
PADDING = 8
"""Columns beside a tile into which the last block of lanes of a row may run."""
STRIDE = TILE_WIDTH + PADDING

MEAN_X, MEAN_Y, QUADRATIC_XX, QUADRATIC_XY, QUADRATIC_YY, LOG2_OPACITY, COLOR = range(7)
"""Columns of a record. log2 alpha = LOG2_OPACITY + XX dx^2 + XY dx dy + YY dy^2; colours follow."""
LOG2_E = np.float32(1.4426950408889634)


class Bins(NamedTuple):
    """Depth-sorted Gaussians of all views and their tiles (V visible rows, P pairs, B tiles)."""

    columns: int  # tiles in a row of one view
    rows: int
    ids: np.ndarray  # [V] int64, Gaussian of each rank
    view_start: np.ndarray  # [C+1] int64, ranks of each view
    records: np.ndarray  # [V, 6+D] float32
    boxes: np.ndarray  # [V,4] int32: x0, x1, y0, y1 in pixels, end excluded
    tile_start: np.ndarray  # [B+1] int64, pairs of each tile
    pair_rank: np.ndarray  # [P] int32
    pair_slot: np.ndarray  # [P] int32
    first_slot: np.ndarray  # [V+1] int64


@njit(parallel=True, cache=True)
def _visible_keys(depths, keys, counts):
    """keys[c, :counts[c]] = (depth bits << 32 | Gaussian) of the visible rows of depths [C,N]."""
    for view in prange(depths.shape[0]):
        bits = depths[view].view(np.uint32)
        count = 0
        for i in range(bits.shape[0]):
            keys[view, count] = (np.uint64(bits[i]) << np.uint64(32)) | np.uint64(i)
            count += bits[i] != 0
        counts[view] = count


@njit(cache=True)
def _tile_span(boxes, rank):
    """First and past-the-last tile column and row of a box."""
    return (
        boxes[rank, 0] // TILE_WIDTH,
        (boxes[rank, 1] - 1) // TILE_WIDTH + 1,
        boxes[rank, 2] // TILE_HEIGHT,
        (boxes[rank, 3] - 1) // TILE_HEIGHT + 1,
    )


@njit(cache=True)
def _fill_record(record, box, row, mean2d, conic, log2_opacity, reach, color, size):
    record[MEAN_X], record[MEAN_Y] = mean2d[0], mean2d[1]
    record[QUADRATIC_XX] = np.float32(-0.5) * LOG2_E * conic[0]
    record[QUADRATIC_XY] = -LOG2_E * conic[1]
    record[QUADRATIC_YY] = np.float32(-0.5) * LOG2_E * conic[2]
    record[LOG2_OPACITY] = log2_opacity
    for d in range(color.shape[0]):
        record[COLOR + d] = color[d]
    for axis in range(2):
        slack = np.float32(0.01) + np.float32(1e-4) * reach[axis] - np.float32(0.5)
        low = np.ceil(mean2d[axis] - reach[axis] - np.float32(1.0) - slack)
        high = np.floor(mean2d[axis] + reach[axis] + np.float32(1.0) + slack)
        box[2 * axis] = np.int32(min(max(low, np.float32(0.0)), np.float32(size[axis])))
        box[2 * axis + 1] = np.int32(min(max(high, np.float32(0.0)), np.float32(size[axis])))


@njit(parallel=True, cache=True)
def _pack(keys, view_start, projected, log2_opacities, colors, size, tiles, ids, records, boxes, tile_counts):
    """Fills ids, records and boxes in depth order and counts the pairs of each tile [C, tiles]."""
    means2d, conics, reaches = projected
    for item in prange(keys.shape[0]):
        view = np.int64(item)
        color_view = min(view, colors.shape[0] - 1)
        for place in range(view_start[view + 1] - view_start[view]):
            rank = view_start[view] + place
            i = np.int64(keys[view, place] & np.uint64(0xFFFFFFFF))
            ids[rank] = i
            _fill_record(
                records[rank], boxes[rank], i, means2d[view, i], conics[view, i], log2_opacities[i],
                reaches[view, i], colors[color_view, i], size,
            )  # fmt: skip
            if boxes[rank, 1] > boxes[rank, 0] and boxes[rank, 3] > boxes[rank, 2]:
                left, right, top, bottom = _tile_span(boxes, rank)
                for row in range(top, bottom):
                    for column in range(left, right):
                        tile_counts[view, row * tiles[0] + column] += 1


@njit(parallel=True, cache=True)
def _fill_pairs(view_start, boxes, tiles, tile_start, pair_rank, pair_slot, first_slot):
    per_view = tiles[0] * tiles[1]
    for item in prange(view_start.shape[0] - 1):
        view = np.int64(item)
        fill = tile_start[view * per_view : (view + 1) * per_view].copy()
        slot = tile_start[view * per_view]
        for rank in range(view_start[view], view_start[view + 1]):
            first_slot[rank] = slot
            if boxes[rank, 1] <= boxes[rank, 0] or boxes[rank, 3] <= boxes[rank, 2]:
                continue
            left, right, top, bottom = _tile_span(boxes, rank)
            for row in range(top, bottom):
                for column in range(left, right):
                    tile = row * tiles[0] + column
                    pair_rank[fill[tile]], pair_slot[fill[tile]] = rank, slot
                    fill[tile] += 1
                    slot += 1


def build_bins(projected, depths, log2_opacities, colors, width: int, height: int) -> Bins:
    """Sorts the visible Gaussians of each view by depth (ties by index) and lists them per tile.

    Args (float32 arrays):
        projected: (means2d [C,N,2], conics [C,N,3], reaches [C,N,2]); depths [C,N], 0 where not visible;
        log2_opacities [N]; colors [1,N,D] or [C,N,D]; width, height in pixels.
    """
    views, count = depths.shape
    keys, counts = np.empty((views, count + 1), np.uint64), np.empty(views, np.int64)
    _visible_keys(depths, keys, counts)
    for view in range(views):
        keys[view, : counts[view]].sort()
    view_start = np.concatenate([[0], np.cumsum(counts)])
    visible = int(view_start[-1])
    tiles = (-(-width // TILE_WIDTH), -(-height // TILE_HEIGHT))
    ids, boxes = np.empty(visible, np.int64), np.empty((visible, 4), np.int32)
    records = np.empty((visible, COLOR + colors.shape[2]), np.float32)
    tile_counts = np.zeros((views, tiles[0] * tiles[1]), np.int64)
    size = (width, height)
    _pack(keys, view_start, projected, log2_opacities, colors, size, tiles, ids, records, boxes, tile_counts)
    tile_start = np.concatenate([[0], np.cumsum(tile_counts)])
    pairs = int(tile_start[-1])
    pair_rank, pair_slot = np.empty(pairs, np.int32), np.empty(pairs, np.int32)
    first_slot = np.empty(visible + 1, np.int64)
    first_slot[visible] = pairs
    _fill_pairs(view_start, boxes, tiles, tile_start, pair_rank, pair_slot, first_slot)
    return Bins(*tiles, ids, view_start, records, boxes, tile_start, pair_rank, pair_slot, first_slot)
