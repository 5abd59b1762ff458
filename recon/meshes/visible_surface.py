"""Cast rays at a mesh for depth, and for points that can be seen from outside: `mesh_depth`, `outer_points`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from recon.cameras import Cameras

LIFT = 1e-3
"""World units by which a ray starts off the surface."""
ESCAPES = 24
"""Directions in which a point may see the outside."""


def triangles_of(corners: NDArray[np.float32]) -> Any:
    """Corners [F,3,3] as a `trimesh.Trimesh` that casts rays."""
    from trimesh import Trimesh

    faces = np.arange(3 * len(corners)).reshape(-1, 3)
    return Trimesh(corners.reshape(-1, 3).astype(np.float64), faces, process=False)


def mesh_depth(corners: NDArray[np.float32], cameras: Cameras) -> NDArray[np.float32]:
    """Distance along the camera's axis at each pixel's centre, world units [V,S,S]; 0 where there is nothing."""
    mesh, size = triangles_of(corners), cameras.size
    rows, columns = np.mgrid[:size, :size] + 0.5
    pixels = np.stack([columns, rows, np.ones_like(rows)], -1).reshape(-1, 3)
    depth = np.zeros((len(cameras), size * size), np.float32)
    for view, (viewmat, intrinsics) in enumerate(zip(cameras.viewmats.numpy(), cameras.Ks.numpy(), strict=True)):
        turn = viewmat[:3, :3].astype(np.float64)
        eye = -turn.T @ viewmat[:3, 3]
        rays = pixels @ np.linalg.inv(intrinsics).T @ turn
        origins = np.broadcast_to(eye, rays.shape)
        places, ray, _ = mesh.ray.intersects_location(origins, rays, multiple_hits=False)
        depth[view, ray] = (places - eye) @ turn[2]
    return depth.reshape(len(cameras), size, size)


def outer_points(corners: NDArray[np.float32], count: int, seed: int = 0) -> NDArray[np.float64]:
    """At most `count` points, uniform by area, on faces [F,3,3] that some direction sees from outside.

    Low-poly assets are made of parts that reach into each other; what lies inside is no surface of the object.
    """
    from trimesh.sample import sample_surface

    mesh = triangles_of(corners)
    points, faces = sample_surface(mesh, 3 * count, seed=seed)[:2]  # pyright: ignore[reportAssignmentType]
    outside = np.zeros(len(points), bool)
    for way in _directions(ESCAPES):
        side = np.sign(mesh.face_normals[faces] @ way)[:, None]
        hidden = np.flatnonzero(~outside)
        starts = (points + LIFT * side * mesh.face_normals[faces])[hidden]
        outside[hidden] = ~mesh.ray.intersects_any(starts, np.broadcast_to(way, starts.shape))
    return points[outside][:count]


def _directions(count: int) -> NDArray[np.float64]:
    """Unit vectors [count,3] spread evenly over the sphere, by the golden angle."""
    k = np.arange(count) + 0.5
    height, turn = 1 - 2 * k / count, np.pi * (1 + 5**0.5) * k
    radius = np.sqrt(1 - height**2)
    return np.stack([radius * np.cos(turn), height, radius * np.sin(turn)], -1)
