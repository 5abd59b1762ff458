"""Decimate a closed surface to a chain of levels of detail, each coloured anew: `levels_of`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recon.config import MeshConfig
from recon.texture import Texels, textured

if TYPE_CHECKING:
    from trimesh import Trimesh

SMALLEST_MOVE, GROWTH = 0.05, 1.4
"""Decimation moves the surface by as many units first, and by so many times more while there are too many triangles."""
FEWER, SMALLER = 4, 2
"""A level has so many times fewer triangles than the one before, and a texture of so many times less side."""
LEAST_FACES, LEAST_TEXTURE = 20, 16


@dataclass(kw_only=True, slots=True)
class Paint:
    """Where a surface's colours come from, sRGB in [0,1]."""

    at: Callable[[NDArray], NDArray[np.float32]]
    """[N,3] of places [N,3], world units."""
    texels: Callable[[Texels], NDArray[np.float32]]
    """[T,3] of texels."""


def levels_of(
    vertices: NDArray, faces: NDArray, unit: float, largest: float, paint: Paint, config: MeshConfig
) -> list[Trimesh]:
    """A mesh of about `config.faces` triangles and its `config.lods` coarser levels, all closed manifolds.

    Args:
        vertices: [V,3] world units. faces: [F,3], a closed manifold.
        unit: world units of decimation's moves. largest: how far the first level may move, units; each next one may
            move twice as far.
    """
    from trimesh import Trimesh

    found, points = [], vertices / unit
    for level in range(config.lods + 1):
        target = max(config.faces // FEWER**level, LEAST_FACES)
        points, faces = decimated(points, faces, target, largest * 2**level)
        colours = (255 * paint.at(points * unit)).round().astype(np.uint8)
        mesh = Trimesh(points * unit, faces, vertex_colors=colours, process=False)
        size = max(config.texture // SMALLER**level, LEAST_TEXTURE)
        found.append(textured(mesh, paint.texels, size) if config.texture else mesh)
    return found


def decimated(vertices: NDArray, faces: NDArray, target: int, largest: float) -> tuple[NDArray, NDArray]:
    """At most about `target` faces by edge collapse that keeps the surface a closed manifold.

    The surface may move by up to `largest`, in the unit of its vertices; one that has more faces even then stays so,
    and one that is no closed manifold stays as it is.
    """
    from manifold3d import Manifold, Mesh

    whole = Manifold(Mesh(vertices.astype(np.float32), faces.astype(np.uint32)))
    if whole.is_empty():
        return vertices, faces
    solid, move = whole, SMALLEST_MOVE
    while solid.num_tri() > target and move <= largest:
        solid, move = whole.simplify(move), move * GROWTH
    made = solid.to_mesh()
    return np.asarray(made.vert_properties[:, :3]), np.asarray(made.tri_verts)
