"""Triangles cover a polygon exactly, whatever its shape and place."""

import numpy as np
import pytest

from recon.meshes.polygons import triangulated

STAR = [
    (radius * np.cos(angle), radius * np.sin(angle), 0)
    for angle, radius in zip(np.arange(10) * np.pi / 5, [2, 0.7] * 5)
]
SHAPES = {
    "square": [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0)],
    "arrow": [(0, 0, 0), (2, 1, 0), (0, 2, 0), (0.5, 1, 0)],
    "arrow from its notch": [(0.5, 1, 0), (0, 0, 0), (2, 1, 0), (0, 2, 0)],
    "L": [(0, 0, 0), (3, 0, 0), (3, 1, 0), (1, 1, 0), (1, 3, 0), (0, 3, 0)],
    "star": STAR,
    "U": [(0, 0, 0), (3, 0, 0), (3, 3, 0), (2, 3, 0), (2, 1, 0), (1, 1, 0), (1, 3, 0), (0, 3, 0)],
}


def area(points: np.ndarray) -> float:
    return float(np.linalg.norm(np.cross(points, np.roll(points, -1, 0)).sum(0)) / 2)


@pytest.mark.parametrize("turn", [np.eye(3), np.eye(3)[[2, 0, 1]], np.eye(3)[[1, 2, 0]], -np.eye(3)], ids=range(4))
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_triangles_fill_a_polygon_once(shape, backwards, turn):
    points = np.array(SHAPES[shape], float) @ turn
    points = points[::-1] if backwards else points
    whole = np.cross(points, np.roll(points, -1, 0)).sum(0)
    found = triangulated(points)
    assert len(found) == len(points) - 2
    pieces = [points[list(triangle)] for triangle in found]
    assert all(np.cross(b - a, c - a) @ whole >= -1e-9 for a, b, c in pieces), "none is turned over"
    assert sum(map(area, pieces)) == pytest.approx(area(points))


def test_a_polygon_that_crosses_itself_or_has_no_area_still_ends():
    bow = np.array([(0, 0, 0), (1, 1, 0), (1, 0, 0), (0, 1, 0), (-3, 0, 0)], float)
    assert len(triangulated(bow)) == 3
    assert len(triangulated(np.zeros((6, 3)))) == 4


def test_large_concave_polygons_are_refused():
    angles = np.linspace(0, 2 * np.pi, 2002, endpoint=False)
    radii = np.tile([1, 0.5], 1001)
    with pytest.raises(ValueError, match="2002 corners; the limit is 1000"):
        triangulated(np.stack([radii * np.cos(angles), radii * np.sin(angles), 0 * angles], -1))
