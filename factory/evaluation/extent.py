"""Bring shapes to the size that a protocol looks at: `gaussians_in` and `mesh_in` its extent."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from eval.protocols import Extent
    from recon.gaussians import Gaussians
    from recon.meshes.mesh import Mesh

SOLID = 0.99
"""Share of the Gaussians that a shape's extent is measured by."""


def gaussians_in(gaussians: Gaussians, extent: Extent = "sphere") -> Gaussians:
    """Gaussians moved and scaled so that they reach to 1 from the middle of the box about them.

    The box and the reach are those of SOLID of the centres of what is half opaque or more: stray ones count nothing.
    "centroid cube" takes the mean of these centres for the middle, where a mesh has that of its vertices.

    Raises:
        ValueError: when none is half opaque, or all lie in one point.
    """
    import torch

    centres = gaussians.means[gaussians.alphas >= 0.5]
    if not len(centres):
        raise ValueError(f"no Gaussian is half opaque; there is nothing to bring into the unit {extent}")
    ends = torch.quantile(centres, torch.tensor([(1 - SOLID) / 2, (1 + SOLID) / 2]), dim=0)
    middle = centres.mean(0) if extent == "centroid cube" else ends.mean(0)
    offsets = centres - middle
    reach = torch.quantile(offsets.norm(dim=1) if extent == "sphere" else offsets.abs().amax(1), SOLID)
    if reach <= 0:
        raise ValueError(f"all Gaussians lie in one point; there is nothing to bring into the unit {extent}")
    return replace(gaussians, means=(gaussians.means - middle) / reach, scales=gaussians.scales - reach.log())


def mesh_in(mesh: Mesh, extent: Extent) -> Mesh:
    """A mesh in its unit sphere moved and scaled into a cube of half side 1."""
    if extent == "sphere":
        return mesh
    points = mesh.corners.reshape(-1, 3)
    if extent == "cube":
        middle = (points.min(0) + points.max(0)) / 2
    else:
        middle = np.unique(points, axis=0).mean(0)
    corners = mesh.corners - middle
    return replace(mesh, corners=(corners / np.abs(corners).max()).astype(np.float32))
