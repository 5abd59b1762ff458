"""Gaussians to a closed, coloured triangle mesh (paper A.7): density on a grid, marching cubes, decimation, GLB."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from recon.config import MeshConfig
from recon.gaussians import Gaussians
from recon.texture import textured

if TYPE_CHECKING:
    from trimesh import Trimesh

REACH = 3.0
"""A Gaussian is evaluated up to this many standard deviations."""
LEAST_DEVIATION = 0.7
"""Thinner Gaussians are widened to this many grid steps, since the grid would miss them."""
LEAST_PART = 0.02
"""Separate parts with a smaller share of the largest part's volume are left out."""
SMOOTHING = 0.01
"""Standard deviation of the blur over the density, of the longest side: single Gaussians would make a rough surface."""
PINHOLE = 2
"""Openings of up to twice this many samples do not join a hollow to the outside."""
SMALLEST_MOVE, LARGEST_MOVE = 0.05, 0.8
"""How far decimation may move the surface, samples."""
SH_BAND_0 = 0.28209479177387814
CELLS_AT_ONCE = 2_000_000


def mesh_of(gaussians: Gaussians, config: MeshConfig | None = None) -> Trimesh:
    """The surface where the Gaussians' density reaches `config.density`, +y up as in glTF.

    Hollows are filled, so that only the outer surface remains (see `solid_of`). With `config.texture` the mesh has a
    baked texture (see `textured`), else sRGB colours of degree 0 at its vertices.

    Raises:
        ValueError: if there are no Gaussians, a value is not finite, or the density is nowhere reached.
    """
    from trimesh import Trimesh

    config = config or MeshConfig()
    field, origin, step = density_field(gaussians, config.resolution)
    solid = solid_of(field[0], config.density)
    vertices, faces = surface(solid, config.density)
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
    deviations = np.maximum(deviations, LEAST_DEVIATION * step)
    whiten = rotations.transpose(0, 2, 1) / deviations[:, :, None]
    half = np.ceil(REACH * deviations.max(1) / step).astype(int).clip(max=resolution)
    field = np.zeros((4, *shape), np.float32)
    for width in np.unique(half):
        cube = np.stack(np.meshgrid(*[np.arange(-width, width + 1)] * 3, indexing="ij"), -1).reshape(-1, 3)
        members = np.flatnonzero(half == width)
        for part in np.array_split(members, max(1, len(members) * len(cube) // CELLS_AT_ONCE)):
            cells = np.rint((means[part] - low) / step).astype(int)[:, None] + cube
            offsets = cells * step + low - means[part][:, None]
            squared = np.einsum("nij,nkj->nki", whiten[part], offsets) ** 2
            weights = alphas[part][:, None] * np.exp(-squared.sum(-1) / 2)
            _splat(field, cells, weights, colours[part])
    for axis in range(1, 4):
        np.moveaxis(field, axis, 0)[[0, -1]] = 0
    return field, low, step


def _arrays(gaussians: Gaussians) -> tuple[NDArray, ...]:
    """Means [N,3], deviations [N,3], opacities [N], sRGB colours [N,3] and rotations [N,3,3] as float64."""
    from scipy.spatial.transform import Rotation

    if not len(gaussians):
        raise ValueError("there are 0 Gaussians; a mesh needs at least 1, so fit the asset again")
    quats = gaussians.unit_quats.cpu().double().numpy()
    colours = (0.5 + SH_BAND_0 * gaussians.sh0[:, 0]).clamp(0, 1)
    parts = (gaussians.means, gaussians.standard_deviations, gaussians.alphas, colours)
    arrays = [part.cpu().double().numpy() for part in parts]
    bad = [n for n, a in zip(("means", "scales", "opacities", "sh0"), arrays) if not np.isfinite(a).all()]
    if bad:
        raise ValueError(f"{', '.join(bad)} hold values that are not finite; remove those Gaussians before meshing")
    return (*arrays, Rotation.from_quat(quats[:, [1, 2, 3, 0]]).as_matrix())


def _splat(field: NDArray, cells: NDArray, weights: NDArray, colours: NDArray) -> None:
    shape = field.shape[1:]
    inside = ((cells >= 0) & (cells < shape)).all(-1)
    index = np.ravel_multi_index(tuple(cells[inside].T), shape)
    owner = np.broadcast_to(np.arange(len(cells))[:, None], inside.shape)[inside]
    for channel, value in enumerate(np.concatenate([np.ones((len(cells), 1)), colours], 1).T):
        added = np.bincount(index, weights[inside] * value[owner], minlength=field[channel].size)
        field[channel] += added.reshape(shape).astype(np.float32)


def solid_of(density: NDArray[np.float32], level: float) -> NDArray[np.float32]:
    """The density, smoothed, with hollows filled and small separate parts emptied.

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
    labels, count = ndimage.label(filled)  # pyright: ignore[reportGeneralTypeIssues]
    volumes = np.bincount(labels.ravel(), minlength=count + 1)
    volumes[0] = 0
    small = (volumes < LEAST_PART * volumes.max())[labels] & filled
    solid = np.where(filled & ~full, 2 * level, smooth)
    return np.where(small, 0, solid).astype(np.float32)


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
