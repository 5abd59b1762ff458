"""Optimise the mesh of Gaussians on their frames, re-denoising in turns (paper A.7, Figure 9): `optimised_mesh`.

Example:
    gaussians, history = reconstruct(given, loop, refiner, masker)
    levels, records = optimised_mesh(gaussians, history[-1], MeshConfig())
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recon.cameras import Cameras
from recon.config import FitConfig, MeshConfig
from recon.dmtet.fitter import MeshFitter
from recon.dmtet.start import start_of
from recon.gaussians import Gaussians
from recon.lods import Paint, levels_of
from recon.solid import solid_of

if TYPE_CHECKING:
    from trimesh import Trimesh

Frames = NDArray[np.uint8]
Redenoise = Callable[[Callable[[Cameras], Frames], int], tuple[Frames, Frames]]
"""From what draws the mesh by cameras, uint8 [C,S,S,4], and the number of a round to the next targets and masks."""

MOVE = 0.4
"""How far decimation may move the optimised surface, cube sides of the grid."""
NEIGHBOURS = 3
"""A texel's colour is that of so many vertices of the optimised mesh, by how near they are."""


def optimised_mesh(
    gaussians: Gaussians, targets: Mapping[str, Any], config: MeshConfig | None = None, fit: FitConfig | None = None,
    redenoise: Redenoise | None = None, seed: int = 0,
) -> tuple[list[Trimesh], list[dict[str, Any]]]:  # fmt: skip
    """The mesh of Gaussians as a tetrahedral grid, optimised by the losses of their fit on its frames.

    Args:
        targets: ``targets`` uint8 [V,S,S,3|4], ``masks`` [V,S,S] and ``cameras`` of the fit, as a record of
            `recon.refine.reconstruct` has them.
        fit: its losses and device.
        redenoise: makes new targets after the steps `config.rounds_at`; none for no rounds.
        seed: of the order of the views.

    Returns:
        The mesh and its coarser levels, all closed, as those of `recon.mesh.meshes_of`; and a record for each part of
        the optimisation: ``iteration``, ``losses``, ``seconds``.

    Raises:
        ValueError: as `recon.solid.solid_of`, or if the frames make the mesh vanish.
    """
    config, fit = config or MeshConfig(), fit or FitConfig()
    start = start_of(solid_of(gaussians, config, targets["cameras"]))
    fitter = MeshFitter(start, targets["cameras"], config, fit.loss, seed, fit.device)
    fitter.set_targets(targets["targets"], targets["masks"])
    rounds = [at for at in config.rounds_at if at < config.iterations] if redenoise else []
    for number, at in enumerate(rounds, start=1):
        fitter.run(at - fitter.iteration)
        fitter.set_targets(*redenoise(fitter.pictures, number))  # pyright: ignore[reportOptionalCall]
    fitter.run(config.iterations - fitter.iteration)
    return finished(fitter, config), fitter.history


def finished(fitter: MeshFitter, config: MeshConfig) -> list[Trimesh]:
    """The optimised mesh with about `config.faces` triangles, and its coarser levels, with its colours.

    Hollows, and bits that are smaller than a cube of the grid, are left out.
    """
    from scipy.spatial import KDTree

    vertices, faces, colours = (part.detach().numpy() for part in fitter.surface())
    faces = faces[_volumes(vertices, faces) > fitter.grid.step**3]
    kept, faces = np.unique(faces, return_inverse=True)
    vertices, faces, colours = vertices[kept], faces.reshape(-1, 3), colours[kept]
    tree = KDTree(vertices)

    def between(places: NDArray) -> NDArray[np.float32]:
        apart, nearest = tree.query(places, k=NEIGHBOURS)
        weights = 1 / np.maximum(apart, 1e-6)
        mean = np.einsum("tk,tkc->tc", weights / weights.sum(1, keepdims=True), colours[nearest])
        return mean.clip(0, 1).astype(np.float32)

    paint = Paint(at=between, texels=lambda texels: between(texels.points))
    return levels_of(vertices, faces, fitter.grid.step, MOVE, paint, config)


def _volumes(vertices: NDArray, faces: NDArray) -> NDArray[np.float64]:
    """The volume [F] of the separate part that each face is of; below 0 for hollows."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    joined = coo_matrix((np.ones(2 * len(faces)), (faces[:, [0, 1]].ravel(), faces[:, [1, 2]].ravel())))
    joined.resize(len(vertices), len(vertices))
    parts = connected_components(joined, directed=False)[1][faces[:, 0]]
    a, b, c = vertices[faces].astype(np.float64).transpose(1, 0, 2)
    volumes = np.bincount(parts, np.einsum("fc,fc->f", a, np.cross(b, c)) / 6)
    return np.asarray(volumes, np.float64)[parts]
