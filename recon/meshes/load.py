"""Textured meshes on a CPU: load GLB, glTF, OBJ or PLY, and render turntables of them without GL."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recon.cameras import OrbitConfig, turntable
from recon.meshes.gltf_limits import MAX_FACES, check_gltf, unlit_materials
from recon.meshes.z_buffer import render_view

MAX_FILE_BYTES = 256 << 20
MAX_TEXTURE_PIXELS = 64 << 20
FILE_TYPES = ("glb", "gltf", "obj", "ply")

_SUPERSAMPLING = 2


@dataclass(kw_only=True, slots=True)
class Mesh:
    """A triangle soup normalised to the unit sphere about its bounding box's centre, +y up.

    `corners` [F,3,3], `normals` [F,3,3], `uvs` [F,3,2] (v up), `colors` [F,3,3] in [0,1] (vertex colour
    times the material's factor), `texture_ids` [F] (-1: none). `texels` is every texture as one flat
    [T,4] uint8 array; `textures` [M,3] holds each one's offset, width and height. `cutoffs` [F] is the
    alpha below which a sample is left out (0 for opaque materials). `lit` [F] is False where colours are final.
    """

    corners: NDArray[np.float32]
    normals: NDArray[np.float32]
    uvs: NDArray[np.float32]
    colors: NDArray[np.float32]
    texture_ids: NDArray[np.int32]
    texels: NDArray[np.uint8]
    textures: NDArray[np.int64]
    cutoffs: NDArray[np.float32]
    lit: NDArray[np.bool_]


def load_mesh(source: str | Path | bytes, file_type: str | None = None, in_place: bool = False) -> Mesh:
    """Read one asset and normalise it.

    Args:
        source: a path, or the bytes of a self-contained GLB.
        file_type: one of `FILE_TYPES`; taken from the path's suffix when not given.
        in_place: leave its size and place as they are.

    Raises:
        ValueError: when the file is unreadable, has no faces, holds non-finite vertices, or passes a limit
            (256 MiB, 2 million faces with all instances, 64 million texture pixels; see `check_gltf`).
    """
    import trimesh

    file_type = file_type or ("glb" if isinstance(source, bytes) else Path(source).suffix.lower().lstrip("."))
    if file_type not in FILE_TYPES:
        raise ValueError(f"file type {file_type!r} is not supported. Available: {', '.join(FILE_TYPES)}")
    num_bytes = len(source) if isinstance(source, bytes) else Path(source).stat().st_size
    if num_bytes > MAX_FILE_BYTES:
        raise ValueError(f"asset has {num_bytes} bytes; the limit is {MAX_FILE_BYTES}: decimate it first")
    unlit: set[str] = set()
    if file_type in ("glb", "gltf"):
        document = source if isinstance(source, bytes) else Path(source)
        check_gltf(document)
        unlit = unlit_materials(document)
    stream = io.BytesIO(source) if isinstance(source, bytes) else str(source)
    try:
        scene = trimesh.load_scene(stream, file_type=file_type)
        placed = [(scene.geometry[name], turn) for turn, name in map(scene.graph.get, scene.graph.nodes_geometry)]
    except Exception as error:
        raise ValueError(f"cannot read this {file_type}: {type(error).__name__}: {error}") from error
    placed = [(g, turn) for g, turn in placed if isinstance(g, trimesh.Trimesh) and len(g.faces)]
    num_faces = sum(len(mesh.faces) for mesh, _ in placed)
    if not num_faces:
        raise ValueError("asset has no triangles to render")
    if num_faces > MAX_FACES:
        raise ValueError(f"asset has {num_faces} faces; the limit is {MAX_FACES}: decimate it first")
    mesh = _assemble(placed, _Reading(linear=file_type in ("glb", "gltf"), unlit=unlit))
    return mesh if in_place else replace(mesh, corners=normalised(mesh.corners))


def turned(mesh: Mesh, rotation: NDArray[np.float32]) -> Mesh:
    """The mesh turned by a rotation [3,3]."""
    return replace(mesh, corners=mesh.corners @ rotation.T, normals=mesh.normals @ rotation.T)


def joined(meshes: Sequence[Mesh]) -> Mesh:
    """Several meshes, where they are, as one, normalised again."""
    texels = np.cumsum([0, *(len(mesh.texels) for mesh in meshes)])
    counts = np.cumsum([0, *(len(mesh.textures) for mesh in meshes)])
    textures = [mesh.textures + np.array([texels[k], 0, 0]) for k, mesh in enumerate(meshes)]
    ids = [np.where(mesh.texture_ids < 0, -1, mesh.texture_ids + counts[k]) for k, mesh in enumerate(meshes)]
    together = {name: np.concatenate([getattr(mesh, name) for mesh in meshes])
                for name in ("normals", "uvs", "colors", "texels", "cutoffs", "lit")}  # fmt: skip
    return Mesh(
        corners=normalised(np.concatenate([mesh.corners for mesh in meshes])),
        texture_ids=np.concatenate(ids).astype(np.int32),
        textures=np.concatenate(textures),
        **together,
    )


@dataclass(kw_only=True, slots=True)
class _Reading:
    """How a file's materials are meant, and the textures found in it so far."""

    linear: bool
    """Whether colours of materials and vertices are linear, as in glTF, instead of sRGB."""
    unlit: set[str]
    """Names of materials whose colours are final."""
    images: dict[int, tuple[int, NDArray[np.uint8]]] = field(default_factory=dict)

    def srgb(self, colors: NDArray) -> NDArray:
        """Colours [...,3] of 0 to 255, as they are written, as sRGB in [0,1]."""
        values = colors[..., :3] / 255.0
        if not self.linear:
            return values
        return np.where(values <= 0.0031308, 12.92 * values, 1.055 * np.maximum(values, 1e-9) ** (1 / 2.4) - 0.055)

    def texture(self, image) -> int:
        """The number of a texture."""
        if image.size[0] * image.size[1] > MAX_TEXTURE_PIXELS:
            raise ValueError(f"texture of {image.size} pixels passes the limit of {MAX_TEXTURE_PIXELS} pixels")
        if id(image) not in self.images:
            self.images[id(image)] = (len(self.images), np.asarray(image.convert("RGBA")))
        return self.images[id(image)][0]


def _assemble(placed: list, reading: _Reading) -> Mesh:
    """Geometries of trimesh, each with its place in the scene [4,4], as one mesh."""
    parts = [_soup(mesh, np.asarray(turn), reading) for mesh, turn in placed]
    corners, normals, uvs, colors, ids, cutoffs, lit = (np.concatenate(column) for column in zip(*parts, strict=True))
    if not np.isfinite(corners).all():
        raise ValueError("asset has non-finite vertices")
    ordered = [pixels for _, pixels in sorted(reading.images.values(), key=lambda pair: pair[0])]
    sizes = [p.shape[0] * p.shape[1] for p in ordered]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    textures = [(offsets[i], p.shape[1], p.shape[0]) for i, p in enumerate(ordered)]
    texels = [p.reshape(-1, 4) for p in ordered]
    return Mesh(
        corners=corners.astype(np.float32),
        normals=normals.astype(np.float32),
        uvs=np.nan_to_num(uvs).astype(np.float32),
        colors=colors.astype(np.float32),
        texture_ids=ids.astype(np.int32),
        texels=np.concatenate(texels) if texels else np.zeros((1, 4), np.uint8),
        textures=np.array(textures, np.int64).reshape(-1, 3),
        cutoffs=cutoffs.astype(np.float32),
        lit=lit,
    )


def normalised(corners: NDArray) -> NDArray[np.float32]:
    """Corners [F,3,3] moved and scaled into the unit sphere about their bounding box's centre.

    Raises:
        ValueError: when they all lie in one point.
    """
    points = corners.reshape(-1, 3)
    centred = corners - (points.min(0) + points.max(0)) / 2
    radius = float(np.linalg.norm(centred, axis=-1).max())
    if radius <= 0:
        raise ValueError("asset has no extent: every vertex lies in one point")
    return (centred / radius).astype(np.float32)


def _soup(mesh, turn: NDArray, reading: _Reading) -> tuple[NDArray, ...]:
    """One trimesh geometry at its place [4,4] as per-corner arrays."""
    faces = mesh.faces
    count = len(faces)
    uvs, colors = np.zeros((count, 3, 2)), np.ones((count, 3, 3))
    texture_id, cutoff = -1, 0.0
    visual = mesh.visual
    material = getattr(visual, "material", None)
    if visual.kind == "vertex":
        colors = reading.srgb(visual.vertex_colors[faces])
    elif visual.kind == "face":
        colors = np.repeat(reading.srgb(visual.face_colors)[:, None], 3, axis=1)
    elif material is not None:
        factor = getattr(material, "baseColorFactor", None)
        image = getattr(material, "baseColorTexture", None)
        if not hasattr(material, "baseColorFactor"):  # OBJ's simple materials
            image, factor = material.image, None if material.image is not None else material.diffuse
        if factor is not None:
            colors = colors * reading.srgb(np.asarray(factor, float))
        vertex_colors = getattr(visual, "vertex_attributes", {}).get("color")
        if vertex_colors is not None:
            colors = colors * reading.srgb(vertex_colors[faces])
        if image is not None and visual.uv is not None:
            uvs = visual.uv[faces]
            texture_id = reading.texture(image)
        if getattr(material, "alphaMode", None) in ("MASK", "BLEND"):
            cutoff = getattr(material, "alphaCutoff", None) or 0.5
    return (
        (mesh.vertices @ turn[:3, :3].T + turn[:3, 3])[faces],
        _turned_normals(mesh.vertex_normals, turn[:3, :3])[faces],
        uvs,
        colors,
        np.full(count, texture_id),
        np.full(count, cutoff),
        np.full(count, getattr(material, "name", None) not in reading.unlit),
    )


def _turned_normals(normals: NDArray, turn: NDArray) -> NDArray:
    """Unit normals [V,3] after a linear map [3,3] of what they stand on."""
    cofactors = np.stack([np.cross(turn[(k + 1) % 3], turn[(k + 2) % 3]) for k in range(3)])
    moved = normals @ cofactors.T
    return moved / np.maximum(np.linalg.norm(moved, axis=-1, keepdims=True), 1e-12)


def render_turntable(
    mesh: Mesh, elevation: float, size: int, num_views: int = 16, start_azimuth: float = 0.0
) -> NDArray[np.uint8]:
    """Render views at uniform azimuths, two-sided, softly lit by lights that stay fixed to the object.

    Args:
        mesh: what `load_mesh` returns.
        elevation: radians in (-pi/2, pi/2), one for all views.
        size: pixels a side, 8 to 4096.
        num_views: azimuths, 2*pi/num_views apart.
        start_azimuth: radians, azimuth of view 0.

    Returns:
        uint8 [num_views, size, size, 4]: RGB over white, and coverage.

    Raises:
        ValueError: when `size` is out of range.
    """
    if not 8 <= size <= 4096:
        raise ValueError(f"size is {size}; it must lie in [8, 4096] pixels")
    cameras = turntable(elevation, size, OrbitConfig(num_views=num_views), start_azimuth)
    viewmats = cameras.viewmats.numpy().astype(np.float32)
    focal = float(cameras.Ks[0, 0, 0]) * _SUPERSAMPLING
    views = [
        render_view(
            mesh.corners, mesh.normals, mesh.uvs, mesh.colors, mesh.texture_ids, mesh.texels, mesh.textures,
            mesh.cutoffs, mesh.lit, viewmat, np.float32(focal), size * _SUPERSAMPLING,
        )
        for viewmat in viewmats
    ]  # fmt: skip
    return np.stack([_downsample(view) for view in views])


def _downsample(samples: NDArray[np.float32]) -> NDArray[np.uint8]:
    offsets = range(_SUPERSAMPLING)
    mean = np.mean([samples[a::_SUPERSAMPLING, b::_SUPERSAMPLING] for a in offsets for b in offsets], 0)
    mean[..., :3] += 1 - mean[..., 3:]
    return np.rint(mean * 255).clip(0, 255).astype(np.uint8)
