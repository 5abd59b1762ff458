"""Textured meshes on a CPU: load GLB, glTF or OBJ, and rasterise turntables of them without GL."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numba
import numpy as np
from numpy.typing import NDArray

from factory.gltf_limits import MAX_FACES, check_gltf, unlit_materials
from recon.cameras import OrbitConfig, turntable

MAX_FILE_BYTES = 256 << 20
MAX_TEXTURE_PIXELS = 64 << 20
FILE_TYPES = ("glb", "gltf", "obj", "ply")

# Two soft world-fixed lights; direction to the light, then strength.
_LIGHTS = np.array([[0.40, 0.75, 0.53, 0.32], [-0.70, 0.20, -0.68, 0.12]], np.float32)
_AMBIENT, _SKY = np.float32(0.40), np.float32(0.12)
_SUPERSAMPLING = 2
_NEAR = 0.05


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
        file_type: "glb", "gltf" or "obj"; taken from the path's suffix when not given.
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
        _render_view(
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


@numba.njit(cache=True)
def _render_view(corners, normals, uvs, colors, texture_ids, texels, textures, cutoffs, lit, viewmat, focal, side):
    """Z-buffer one view, then shade what is seen; returns premultiplied float32 samples [side,side,4]."""
    inverse = np.zeros((side, side))
    seen = np.full((side, side), np.int32(-1), np.int32)
    image = np.zeros((side, side, 4), np.float32)
    half = side / 2
    px, py, pz = np.empty((len(corners), 3)), np.empty((len(corners), 3)), np.empty((len(corners), 3))
    for f in range(len(corners)):
        _project(corners[f], viewmat, focal, half, px[f], py[f], pz[f])
        if pz[f].min() > 0:
            _cover(f, px[f], py[f], pz[f], uvs, texture_ids, texels, textures, cutoffs, inverse, seen)
    eye = np.zeros(3)
    for c in range(3):
        eye -= viewmat[c, :3] * viewmat[c, 3]
    for j in range(side):
        for i in range(side):
            f = seen[j, i]
            if f >= 0:
                b0, b1, b2 = _weights(px[f], py[f], i + 0.5, j + 0.5)
                z = 1 / inverse[j, i]
                b0, b1, b2 = b0 * pz[f, 0] * z, b1 * pz[f, 1] * z, b2 * pz[f, 2] * z
                red, green, blue = _albedo(f, b0, b1, b2, uvs, colors, texture_ids, texels, textures)
                light = _light(f, b0, b1, b2, corners, normals, eye) if lit[f] else 1.0
                image[j, i, 0], image[j, i, 1] = min(red * light, 1.0), min(green * light, 1.0)
                image[j, i, 2], image[j, i, 3] = min(blue * light, 1.0), 1.0
    return image


@numba.njit(cache=True, inline="always")
def _project(corners, viewmat, focal, half, px, py, pz):
    """Pixel coordinates and inverse depths of a triangle; inverse depth 0 where a corner is not before the camera."""
    for c in range(3):
        x, y, z = corners[c]
        depth = viewmat[2, 0] * x + viewmat[2, 1] * y + viewmat[2, 2] * z + viewmat[2, 3]
        pz[c] = 1 / depth if depth >= _NEAR else 0.0
        px[c] = half + focal * (viewmat[0, 0] * x + viewmat[0, 1] * y + viewmat[0, 2] * z + viewmat[0, 3]) * pz[c]
        py[c] = half + focal * (viewmat[1, 0] * x + viewmat[1, 1] * y + viewmat[1, 2] * z + viewmat[1, 3]) * pz[c]


@numba.njit(cache=True, inline="always")
def _weights(px, py, u, v):
    """Barycentric weights of a point of the image; no numbers for a triangle without area."""
    area = (px[1] - px[0]) * (py[2] - py[0]) - (px[2] - px[0]) * (py[1] - py[0])
    b0 = ((px[1] - u) * (py[2] - v) - (px[2] - u) * (py[1] - v)) / area
    b1 = ((px[2] - u) * (py[0] - v) - (px[0] - u) * (py[2] - v)) / area
    return b0, b1, 1 - b0 - b1


@numba.njit(cache=True)
def _cover(f, px, py, pz, uvs, texture_ids, texels, textures, cutoffs, inverse, seen):
    """Enter a triangle where it is nearest; not where its texture's alpha falls below the cutoff."""
    side = len(seen)
    area = (px[1] - px[0]) * (py[2] - py[0]) - (px[2] - px[0]) * (py[1] - py[0])
    if abs(area) < 1e-9:
        return
    x0, x1 = max(0, math.floor(px.min() - 0.5)), min(side - 1, math.ceil(px.max()))
    y0, y1 = max(0, math.floor(py.min() - 0.5)), min(side - 1, math.ceil(py.max()))
    step_0, step_1 = (py[1] - py[2]) / area, (py[2] - py[0]) / area
    for j in range(y0, y1 + 1):
        first_0, first_1, _ = _weights(px, py, 0.5, j + 0.5)
        for i in range(x0, x1 + 1):
            b0, b1 = first_0 + i * step_0, first_1 + i * step_1
            b2 = 1 - b0 - b1
            if b0 < 0 or b1 < 0 or b2 < 0:
                continue
            w = b0 * pz[0] + b1 * pz[1] + b2 * pz[2]
            if w <= inverse[j, i]:
                continue
            if cutoffs[f] > 0 and texture_ids[f] >= 0:
                b0, b1, b2 = b0 * pz[0] / w, b1 * pz[1] / w, b2 * pz[2] / w
                if texels[_texel(f, b0, b1, b2, uvs, texture_ids, textures), 3] < cutoffs[f] * 255:
                    continue
            inverse[j, i], seen[j, i] = w, f


@numba.njit(cache=True, inline="always")
def _texel(f, b0, b1, b2, uvs, texture_ids, textures):
    """Which texel lies at a point of a triangle."""
    u = b0 * uvs[f, 0, 0] + b1 * uvs[f, 1, 0] + b2 * uvs[f, 2, 0]
    v = b0 * uvs[f, 0, 1] + b1 * uvs[f, 1, 1] + b2 * uvs[f, 2, 1]
    offset, width, height = textures[texture_ids[f]]
    column = min(int((u - math.floor(u)) * width), width - 1)
    row = min(int((1 - (v - math.floor(v))) * height), height - 1)
    return offset + row * width + column


@numba.njit(cache=True, inline="always")
def _albedo(f, b0, b1, b2, uvs, colors, texture_ids, texels, textures):
    red = b0 * colors[f, 0, 0] + b1 * colors[f, 1, 0] + b2 * colors[f, 2, 0]
    green = b0 * colors[f, 0, 1] + b1 * colors[f, 1, 1] + b2 * colors[f, 2, 1]
    blue = b0 * colors[f, 0, 2] + b1 * colors[f, 1, 2] + b2 * colors[f, 2, 2]
    if texture_ids[f] < 0:
        return red, green, blue
    texel = texels[_texel(f, b0, b1, b2, uvs, texture_ids, textures)]
    return red * texel[0] / 255, green * texel[1] / 255, blue * texel[2] / 255


@numba.njit(cache=True, inline="always")
def _light(f, b0, b1, b2, corners, normals, eye):
    """Light on a point of a triangle, seen from whichever side the eye is on."""
    x = b0 * normals[f, 0, 0] + b1 * normals[f, 1, 0] + b2 * normals[f, 2, 0]
    y = b0 * normals[f, 0, 1] + b1 * normals[f, 1, 1] + b2 * normals[f, 2, 1]
    z = b0 * normals[f, 0, 2] + b1 * normals[f, 1, 2] + b2 * normals[f, 2, 2]
    facing = (eye[0] - b0 * corners[f, 0, 0] - b1 * corners[f, 1, 0] - b2 * corners[f, 2, 0]) * x
    facing += (eye[1] - b0 * corners[f, 0, 1] - b1 * corners[f, 1, 1] - b2 * corners[f, 2, 1]) * y
    facing += (eye[2] - b0 * corners[f, 0, 2] - b1 * corners[f, 1, 2] - b2 * corners[f, 2, 2]) * z
    length = math.sqrt(x * x + y * y + z * z) + 1e-12
    length = -length if facing < 0 else length
    light = _AMBIENT + _SKY * y / length
    for k in range(len(_LIGHTS)):
        cosine = (x * _LIGHTS[k, 0] + y * _LIGHTS[k, 1] + z * _LIGHTS[k, 2]) / length
        light += _LIGHTS[k, 3] * (0.5 + 0.5 * cosine)
    return light
