"""Cut polygons into triangles, concave ones too: `triangulated`, and `all_triangulated` for many at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MAX_CORNERS = 1000


def triangulated(points: NDArray[np.float64]) -> list[tuple[int, int, int]]:
    """Triangles of a polygon in space, as numbers of its corners; ears are clipped where a fan would leave it.

    Args:
        points: its corners [N,3] in order, N >= 3, about in a plane.

    Raises:
        ValueError: for a concave one of over 1,000 corners.
    """
    count = len(points)
    fan = [(0, k, k + 1) for k in range(1, count - 1)]
    ahead = np.roll(points, -1, 0)
    normal = np.cross(points, ahead).sum(0)  # Newell: twice the area along each axis
    areas = np.cross(points[1:-1] - points[0], points[2:] - points[0]) @ normal
    if not np.isfinite(areas).all() or (areas >= 0).all() or not normal.any():
        return fan
    if count > MAX_CORNERS:
        raise ValueError(f"a concave face has {count} corners; the limit is {MAX_CORNERS}: cut it into triangles")
    axis = int(np.abs(normal).argmax())
    flat = np.delete(points, axis, 1) * [1, (1 if normal[axis] > 0 else -1) * (-1 if axis == 1 else 1)]
    return _clipped(flat)


def all_triangulated(
    corners: NDArray[np.int64], counts: NDArray[np.int64], points: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Triangles of many polygons.

    Args:
        corners: numbers of their points, one polygon after another. counts: how many each has, 3 or more.
        points: in space [N,3].

    Returns:
        Numbers of points [F,3], and which polygon each triangle comes from [F].

    Raises:
        ValueError: as `triangulated`.
    """
    starts = np.cumsum(counts) - counts
    faces, owners = [np.zeros((0, 3), np.int64)], [np.zeros(0, np.int64)]
    for count in np.unique(counts):
        some = np.flatnonzero(counts == count)
        rows = corners[starts[some][:, None] + np.arange(count)]
        fan = np.stack([np.zeros(count - 2, int), np.arange(1, count - 1), np.arange(2, count)], -1)
        places = points[rows]
        sides = np.cross(places[:, 1:-1] - places[:, :1], places[:, 2:] - places[:, :1])
        concave = ((sides * sides.sum(1, keepdims=True)).sum(-1) < 0).any(1)
        cut = {place: np.array(triangulated(places[place])) for place in np.flatnonzero(concave)}
        faces += [rows[~concave][:, fan].reshape(-1, 3), *(rows[place][cut[place]] for place in cut)]
        owners += [np.repeat(some[~concave], count - 2), *(np.repeat(some[place], count - 2) for place in cut)]
    return np.concatenate(faces), np.concatenate(owners)


def _clipped(points: NDArray[np.float64]) -> list[tuple[int, int, int]]:
    """Triangles of a polygon of the plane [N,2] that runs counter-clockwise."""
    left, triangles = list(range(len(points))), []
    while len(left) > 3:
        for place in range(len(left)):
            ear = (left[place - 1], left[place], left[(place + 1) % len(left)])
            if _is_ear(points, ear, left):
                break
        else:
            place, ear = 0, (left[-1], left[0], left[1])  # it crosses itself: there is no right way
        triangles.append(ear)
        del left[place]
    return [*triangles, (left[0], left[1], left[2])]


def _is_ear(points: NDArray[np.float64], ear: tuple[int, int, int], left: list[int]) -> bool:
    """Whether a corner points outward and no other corner lies in its triangle."""
    a, b, c = points[list(ear)]
    if _area(a, b, c) <= 0:
        return False
    others = points[[k for k in left if k not in ear]]
    return not ((_area(a, b, others) >= 0) & (_area(b, c, others) >= 0) & (_area(c, a, others) >= 0)).any()


def _area(a: NDArray, b: NDArray, c: NDArray) -> NDArray:
    """Twice the signed area of a, b and each of c [...,2]."""
    return (b[0] - a[0]) * (c[..., 1] - a[1]) - (b[1] - a[1]) * (c[..., 0] - a[0])
