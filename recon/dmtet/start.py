"""Start the optimisation of a mesh from signed distances and colours about the Gaussians' solid: `start_of`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon.dmtet.grid import Grid, grid_about, lattice
from recon.solid import Solid

TRIANGLES = 50_000
"""About so many triangles a mesh has while it is optimised; thin things, of little surface, get a finer grid."""
TRIANGLES_PER_SIDE = 12.7
"""Triangles of the surface on the square of a cube's side; measured on a ball."""
BAND = 2.0
"""Vertices of the grid farther than this from the start, cube sides, keep their distances."""
PADDING = 3
"""Cubes between the solid and the end of the lattice."""


@dataclass(kw_only=True, slots=True)
class Start:
    """A grid of G vertices and its first values."""

    grid: Grid
    distances: NDArray[np.float32]
    """[G] signed, negative inside, world units."""
    colours: NDArray[np.float32]
    """[G,3] sRGB in [0,1]: those of the nearest place on the surface."""
    near: NDArray[np.bool_]
    """[G]: which may change. The surface stays away from the grid's end, so that it is always closed."""


def start_of(solid: Solid) -> Start:
    """The grid about a solid's surface."""
    from scipy.ndimage import map_coordinates
    from scipy.spatial import KDTree
    from trimesh import Trimesh

    vertices, faces = solid.surface()
    mesh = Trimesh(vertices * solid.step + solid.origin, faces, process=False)
    step = math.sqrt(TRIANGLES_PER_SIDE * mesh.area / TRIANGLES)
    low, high = mesh.bounds + np.array([[-PADDING], [PADDING]]) * step
    cubes = np.ceil((high - low) / step).astype(int)
    places, reach = lattice(low, step, cubes), (BAND + 1) * step
    found = KDTree(mesh.vertices).query(places, distance_upper_bound=reach)
    distances, nearest = (np.asarray(part) for part in found)
    within = np.isfinite(distances)
    apart = places[within] - mesh.vertices[nearest[within]]
    along = np.abs((apart * mesh.vertex_normals[nearest[within]]).sum(1))
    distances = np.where(within, distances, reach)
    near = distances < BAND * step
    distances[within] = np.where(near[within], along, distances[within]).clip(0.01 * step)
    inside = map_coordinates(solid.values, ((places - solid.origin) / solid.step).T, order=1, cval=0) > 1
    grid, kept = grid_about(near, low, step, cubes)
    colours = solid.colours(vertices)
    owners = np.where(within, nearest, 0)[kept]
    return Start(
        grid=grid, distances=np.where(inside, -distances, distances)[kept].astype(np.float32), near=near[kept],
        colours=np.where(within[kept, None], colours[owners], colours.mean(0)).astype(np.float32),
    )  # fmt: skip
