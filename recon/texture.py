"""Bake a mesh's texture from what its Gaussians show all around (A.7): `textured`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from recon.cameras import Cameras
from recon.gaussians import Gaussians
from recon.rasterize import rasterize
from recon.silhouettes import SIDE, rings

if TYPE_CHECKING:
    from trimesh import Trimesh

GAP = 2
"""Texels between charts, so that none bleeds into another."""
RINGS = {-20.0: 6, 15.0: 12, 50.0: 8, 80.0: 3}
"""Views at each elevation, in degrees, that colours are taken from."""
DEPTH_TOLERANCE = 0.06
"""A point is seen where the Gaussians' depth differs from its own by less, world units; the object's radius is 1."""


@dataclass(kw_only=True, slots=True)
class Texels:
    """T covered texels of a square texture.

    `rows` and `columns` [T], `points` [T,3] and unit `normals` [T,3] on the surface, `colours` [T,3] in [0,1] from
    the vertices.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    points: NDArray[np.float32]
    normals: NDArray[np.float32]
    colours: NDArray[np.float32]


def textured(mesh: Trimesh, paint: Callable[[Texels], NDArray[np.float32]], size: int) -> Trimesh:
    """The mesh with a texture in place of its vertex colours.

    Vertices on seams are doubled, so that the surface is closed by position only.

    Args:
        mesh: closed, with sRGB vertex colours.
        paint: gives texels their colours [T,3] in [0,1], as `seen_colours` does.
        size: side of the texture in texels, >= 16.
    """
    import xatlas
    from PIL import Image
    from scipy.ndimage import distance_transform_edt
    from trimesh import Trimesh
    from trimesh.visual import TextureVisuals
    from trimesh.visual.material import PBRMaterial

    atlas, packing = xatlas.Atlas(), xatlas.PackOptions()
    packing.resolution, packing.padding = size, GAP
    atlas.add_mesh(mesh.vertices.astype(np.float32), mesh.faces.astype(np.uint32))
    atlas.generate(pack_options=packing)
    origins, faces, uvs = atlas[0]
    texels = texels_of(mesh, origins, faces, uvs, size)
    picture = np.zeros((size, size, 3), np.float32)
    picture[texels.rows, texels.columns] = paint(texels)
    empty = np.ones((size, size), bool)
    empty[texels.rows, texels.columns] = False
    nearest = np.asarray(distance_transform_edt(empty, return_distances=False, return_indices=True))
    image = Image.fromarray((picture[tuple(nearest)].clip(0, 1) * 255).round().astype(np.uint8))
    material = PBRMaterial(baseColorTexture=image, metallicFactor=0.0, roughnessFactor=1.0)
    return Trimesh(
        mesh.vertices[origins], faces, vertex_normals=mesh.vertex_normals[origins],
        visual=TextureVisuals(uvs, material), process=False,
    )  # fmt: skip


def texels_of(mesh: Trimesh, origins: NDArray, faces: NDArray, uvs: NDArray, size: int) -> Texels:
    """The texels that an unwrapped mesh covers.

    Args:
        origins: [V] the mesh's vertex that each unwrapped one is. faces: [F,3]. uvs: [V,2] in [0,1], v up.
        size: side of the texture.
    """
    places = np.stack([uvs[:, 0], 1 - uvs[:, 1]], -1) * size
    owners, weights = _cover(places[faces], size)
    rows, columns = np.nonzero(owners >= 0)
    corners = origins[faces[owners[rows, columns]]]
    weights = weights[rows, columns]

    def between(values: NDArray) -> NDArray[np.float32]:
        return np.einsum("tk,tkc->tc", weights, values[corners]).astype(np.float32)

    normals = between(mesh.vertex_normals)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    colours = np.asarray(mesh.visual.vertex_colors)[:, :3] / 255  # pyright: ignore
    return Texels(
        rows=rows, columns=columns, points=between(np.asarray(mesh.vertices)), normals=normals, colours=between(colours)
    )


@numba.njit(cache=True)
def _cover(corners, size):
    """Which triangle [F,3,2] covers each texel's centre, -1 for none, and the barycentric weights there."""
    owners = np.full((size, size), -1, np.int32)
    weights = np.zeros((size, size, 3), np.float32)
    for face in range(len(corners)):
        (ax, ay), (bx, by), (cx, cy) = corners[face]
        area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
        if area == 0:
            continue
        left, right = max(0, int(min(ax, bx, cx) - 0.5)), min(size, int(max(ax, bx, cx) + 1.5))
        top, bottom = max(0, int(min(ay, by, cy) - 0.5)), min(size, int(max(ay, by, cy) + 1.5))
        for row in range(top, bottom):
            for column in range(left, right):
                x, y = column + 0.5, row + 0.5
                b = ((x - ax) * (cy - ay) - (cx - ax) * (y - ay)) / area
                c = ((bx - ax) * (y - ay) - (x - ax) * (by - ay)) / area
                if b >= 0 and c >= 0 and b + c <= 1:
                    owners[row, column] = face
                    weights[row, column] = 1 - b - c, b, c
    return owners, weights


@torch.no_grad()
def seen_colours(gaussians: Gaussians, texels: Texels) -> NDArray[np.float32]:
    """Colours [T,3] of texels: the mean of the views from all around that see one, by how squarely they do.

    Where none does, that of the vertices around it.
    """
    cameras = rings(RINGS, gaussians)
    points, normals = torch.from_numpy(texels.points), torch.from_numpy(texels.normals)
    summed, weights = torch.zeros_like(points), torch.zeros(len(points), 1)
    for view in range(len(cameras)):
        colours, weight = _view_of(gaussians, cameras, view, points, normals)
        summed += weight * colours
        weights += weight
    return torch.where(weights > 1e-3, summed / weights.clamp_min(1e-3), torch.from_numpy(texels.colours)).numpy()


def _view_of(
    gaussians: Gaussians, cameras: Cameras, view: int, points: Tensor, normals: Tensor
) -> tuple[Tensor, Tensor]:
    """What one view shows at points: colours [T,3], and weights [T,1], 0 where it does not see them."""
    device = gaussians.means.device
    viewmat, K = cameras.viewmats[view], cameras.Ks[view]
    images, alphas, _ = rasterize(
        gaussians.means, gaussians.quats, gaussians.standard_deviations, gaussians.alphas, gaussians.sh,
        viewmat[None].to(device), K[None].to(device), SIDE, SIDE, sh_degree=gaussians.sh_degree,
        render_mode="RGB+ED",
    )  # fmt: skip
    images[..., :3] /= alphas.clamp_min(1e-3)
    local = points @ viewmat[:3, :3].T + viewmat[:3, 3]
    pixels = (local @ K.T)[:, :2] / local[:, 2:]
    grid = (2 * pixels / SIDE - 1).view(1, 1, -1, 2)
    layers = torch.cat([images, alphas], -1).permute(0, 3, 1, 2).cpu()
    found = F.grid_sample(layers, grid, align_corners=False)[0, :, 0].T
    facing = -(local / local.norm(dim=1, keepdim=True) * (normals @ viewmat[:3, :3].T)).sum(1, keepdim=True)
    near = (found[:, 3:4] - local[:, 2:]).abs() < DEPTH_TOLERANCE
    return found[:, :3], facing.clamp_min(0).square() * near * (found[:, 4:] > 0.5)
