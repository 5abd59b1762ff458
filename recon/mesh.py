"""Turn Gaussians into a closed, coloured triangle mesh (A.7), density, marching cubes, decimation: `mesh_of`.

    density(x) = sum_i o_i exp(-d_i(x)^2 / 2),    d_i: Mahalanobis distance from Gaussian i, o_i its opacity in [0,1]

on a grid [X,Y,Z] of equal steps; the surface is where the density equals `MeshConfig.density`, vertices [P,3] are in
world units, faces [Q,3].
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numba
import numpy as np
from numpy.typing import NDArray

from recon.config import MeshConfig
from recon.gaussians import Gaussians
from recon.silhouettes import least_coverage
from recon.texture import textured

if TYPE_CHECKING:
    from trimesh import Trimesh

REACH = 3.0
"""A Gaussian is evaluated up to this many standard deviations."""
LEAST_DEVIATION = 0.7
"""Thinner Gaussians are widened to this many grid steps, since the grid would miss them."""
LEAST_PART = 0.02
"""Separate parts with a smaller share of the largest part's volume are left out."""
SMOOTHING = 0.004
"""Standard deviation of the blur over the density, of the longest side: single Gaussians would make a rough surface."""
EMPTY = 0.1
"""A place is empty where some view shows less coverage. The least of many uncertain views lies below the true coverage:
at one half, thin things would vanish."""
PINHOLE = 2
"""Openings of up to twice this many samples do not join a hollow to the outside."""
SMALLEST_MOVE, LARGEST_MOVE = 0.05, 0.8
"""How far decimation may move the surface, samples."""


def mesh_of(gaussians: Gaussians, config: MeshConfig | None = None) -> Trimesh:
    """The surface where the Gaussians' density reaches `config.density`, cut to their outlines; +y up as in glTF.

    The density swells thin things, so what any view shows as empty is taken away (`least_coverage`). Hollows are
    filled, so that only the outer surface remains (see `solid_of`). With `config.texture` the mesh has a
    baked texture (see `textured`), else sRGB colours of degree 0 at its vertices.

    Raises:
        ValueError: if there are no Gaussians, a value is not finite, a quaternion has no length, the density is nowhere
            reached, or all that it makes lies outside of the outlines.
    """
    from trimesh import Trimesh

    config = config or MeshConfig()
    field, origin, step = density_field(gaussians, config.resolution)
    outlines = least_coverage(gaussians, origin, step, field.shape[1:])
    solid = np.minimum(solid_of(field[0], config.density) / config.density, outlines / EMPTY)
    if solid.max() <= 1:
        raise ValueError("the outlines of the Gaussians leave nothing of their density; fit the asset again")
    solid = without_small_parts(solid, 1.0)
    vertices, faces = surface(solid, 1.0)
    vertices, faces = decimated(vertices, faces, config.faces)
    colours = _sampled(field, vertices)
    mesh = Trimesh(vertices * step + origin, faces, vertex_colors=colours, process=False)
    return textured(mesh, gaussians, config.texture) if config.texture else mesh


def density_field(gaussians: Gaussians, resolution: int) -> tuple[NDArray[np.float32], NDArray[np.float64], float]:
    """Density sum_i alpha_i exp(-d_i^2 / 2), d_i the Mahalanobis distance, and the density times each colour.

    Returns:
        The field [4,X,Y,Z] (density, red, green, blue), the world position [3] of its first sample, and the step
        between samples, chosen so that the longest side has `resolution` samples. The border is empty.
    """
    means, deviations, alphas, colours, rotations = _arrays(gaussians)
    reach = REACH * deviations.max(1, keepdims=True)
    low, high = np.quantile(means - reach, 0.001, 0), np.quantile(means + reach, 0.999, 0)
    step = float((high - low).max()) / (resolution - 1)
    shape = tuple(np.ceil((high - low) / step).astype(int) + 1)
    deviations = np.maximum(deviations / step, LEAST_DEVIATION)
    extents = REACH * np.sqrt((rotations**2 * deviations[:, None] ** 2).sum(2))
    whiten = rotations.transpose(0, 2, 1) / deviations[:, :, None]
    field = np.zeros((4, *shape), np.float32)
    _splat(field, (means - low) / step, extents, whiten, alphas, colours)
    for axis in range(1, 4):
        np.moveaxis(field, axis, 0)[[0, -1]] = 0
    return field, low, step


def _arrays(gaussians: Gaussians) -> tuple[NDArray, ...]:
    """Means [N,3], deviations [N,3], opacities [N], sRGB colours [N,3] and rotations [N,3,3] as float64."""
    from scipy.spatial.transform import Rotation

    if not len(gaussians):
        raise ValueError("there are 0 Gaussians; a mesh needs at least 1, so fit the asset again")
    quats = gaussians.unit_quats.cpu().double().numpy()
    parts = (gaussians.means, gaussians.standard_deviations, gaussians.alphas, gaussians.base_colours)
    arrays = [part.cpu().double().numpy() for part in parts]
    names = ("means", "scales", "opacities", "sh0", "quats")
    bad = [name for name, array in zip(names, [*arrays, quats], strict=True) if not np.isfinite(array).all()]
    if bad:
        raise ValueError(f"{', '.join(bad)} hold values that are not finite; remove those Gaussians before meshing")
    if not np.linalg.norm(quats, axis=1).all():
        raise ValueError("some quats have length 0; give them a direction, such as (1, 0, 0, 0), before meshing")
    return (*arrays, Rotation.from_quat(quats[:, [1, 2, 3, 0]]).as_matrix())


@numba.njit(cache=True)
def _splat(field, means, extents, whiten, alphas, colours):
    """Add Gaussians to a field [4,X,Y,Z]; means, half sides of their boxes and deviations in samples."""
    _, wide, high, deep = field.shape
    for n in range(len(means)):
        (x0, y0, z0), (rx, ry, rz), w = means[n], extents[n], whiten[n]
        for i in range(max(0, math.ceil(x0 - rx)), min(wide - 1, math.floor(x0 + rx)) + 1):
            for j in range(max(0, math.ceil(y0 - ry)), min(high - 1, math.floor(y0 + ry)) + 1):
                for k in range(max(0, math.ceil(z0 - rz)), min(deep - 1, math.floor(z0 + rz)) + 1):
                    x, y, z = i - x0, j - y0, k - z0
                    squared = 0.0
                    for axis in range(3):
                        squared += (w[axis, 0] * x + w[axis, 1] * y + w[axis, 2] * z) ** 2
                    if squared <= REACH**2:
                        density = alphas[n] * math.exp(-squared / 2)
                        field[0, i, j, k] += density
                        for channel in range(3):
                            field[channel + 1, i, j, k] += density * colours[n, channel]


def solid_of(density: NDArray[np.float32], level: float) -> NDArray[np.float32]:
    """The density, smoothed, with hollows filled.

    Gaussians cover a surface, often with pinholes: a hollow counts as closed when openings of up to `2 * PINHOLE`
    samples are stopped.

    Raises:
        ValueError: if the density is nowhere above `level`.
    """
    from scipy import ndimage

    smooth = np.pad(ndimage.gaussian_filter(density, SMOOTHING * max(density.shape))[1:-1, 1:-1, 1:-1], 1)
    full = smooth > level
    if not full.any():
        raise ValueError(f"the density reaches {smooth.max():.3g}, not mesh.density {level}; lower mesh.density")
    stopped = np.pad(full, PINHOLE)
    stopped = np.asarray(ndimage.binary_closing(stopped, iterations=PINHOLE))[(slice(PINHOLE, -PINHOLE),) * 3]
    stopped = stopped.astype(bool)
    hollow = np.asarray(ndimage.binary_fill_holes(stopped)) & ~stopped
    filled = np.asarray(ndimage.binary_fill_holes(full | hollow))
    return np.where(filled & ~full, 2 * level, smooth).astype(np.float32)


def without_small_parts(density: NDArray[np.float32], level: float) -> NDArray[np.float32]:
    """The density without separate parts above `level` that have less than `LEAST_PART` of the largest one's volume."""
    from scipy import ndimage

    labels, count = ndimage.label(density > level)  # pyright: ignore[reportGeneralTypeIssues]
    volumes = np.bincount(labels.ravel(), minlength=count + 1)
    volumes[0] = volumes[1:].max()
    return np.where((volumes < LEAST_PART * volumes.max())[labels], 0, density).astype(np.float32)


def surface(density: NDArray[np.float32], level: float) -> tuple[NDArray, NDArray]:
    """Marching cubes: vertices [V,3] in samples and faces [F,3], counter-clockwise seen from outside."""
    from skimage.measure import marching_cubes

    vertices, faces, _, _ = marching_cubes(density, level, gradient_direction="ascent", allow_degenerate=False)
    return vertices, faces


def decimated(vertices: NDArray, faces: NDArray, target: int) -> tuple[NDArray, NDArray]:
    """At most about `target` faces by edge collapse that keeps the surface a closed manifold.

    Vertices may move by up to `LARGEST_MOVE` samples; a surface that has more faces even then stays so, and one
    that is no closed manifold stays as it is.
    """
    from manifold3d import Manifold, Mesh

    whole = Manifold(Mesh(vertices.astype(np.float32), faces.astype(np.uint32)))
    if whole.is_empty():
        return vertices, faces
    solid, move = whole, SMALLEST_MOVE
    while solid.num_tri() > target and move <= LARGEST_MOVE:
        solid, move = whole.simplify(move), move * 2
    made = solid.to_mesh()
    return np.asarray(made.vert_properties[:, :3]), np.asarray(made.tri_verts)


def _sampled(field: NDArray[np.float32], vertices: NDArray) -> NDArray[np.uint8]:
    from scipy.ndimage import map_coordinates

    density, *rest = (map_coordinates(channel, vertices.T, order=1) for channel in field)
    colours = np.stack(rest, -1) / np.maximum(density, 1e-6)[:, None]
    return (colours.clip(0, 1) * 255).round().astype(np.uint8)


def glb_bytes(mesh: Trimesh) -> bytes:
    """The mesh as binary glTF 2.0 with normals; vertex colours become linear, as glTF's COLOR_0 wants them.

    Its material is unlit (KHR_materials_unlit): the colours hold the light of the views that they were fitted to.
    """
    if mesh.visual.kind != "texture":  # pyright: ignore[reportOptionalMemberAccess]
        srgb = np.asarray(mesh.visual.vertex_colors)[:, :3] / 255  # pyright: ignore
        linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
        mesh = mesh.copy()
        mesh.visual.vertex_colors = (linear * 255).round().astype(np.uint8)  # pyright: ignore
    exported = mesh.export(file_type="glb", include_normals=True, tree_postprocessor=_unlit)  # pyright: ignore
    return bytes(exported)  # pyright: ignore[reportArgumentType]


def _unlit(tree: dict) -> None:
    """Make the only material of a glTF's JSON unlit, and one where there is none."""
    material = tree.setdefault("materials", [{"pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0}}])
    material[0] |= {"name": "baked", "extensions": {"KHR_materials_unlit": {}}}
    tree["extensionsUsed"] = [*tree.get("extensionsUsed", []), "KHR_materials_unlit"]
    for part in tree["meshes"]:
        for primitive in part["primitives"]:
            primitive["material"] = 0
