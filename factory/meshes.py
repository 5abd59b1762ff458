"""Textured meshes on a CPU: load GLB, glTF or OBJ, and rasterise turntables of them without GL."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numba
import numpy as np
from numpy.typing import NDArray

from factory.gltf_limits import MAX_FACES, check_gltf
from recon.cameras import OrbitConfig, turntable

MAX_FILE_BYTES = 256 << 20
MAX_TEXTURE_PIXELS = 64 << 20
FILE_TYPES = ("glb", "gltf", "obj", "ply")

# Two soft world-fixed lights; direction to the light, then strength.
_LIGHTS = np.array([[0.40, 0.75, 0.53, 0.32], [-0.70, 0.20, -0.68, 0.12]], np.float32)
_AMBIENT, _SKY = np.float32(0.40), np.float32(0.12)
_SUPERSAMPLING = 2


@dataclass(kw_only=True, slots=True)
class Mesh:
    """A triangle soup normalised to the unit sphere about its bounding box's centre, +y up.

    `corners` [F,3,3], `normals` [F,3,3], `uvs` [F,3,2] (v up), `colors` [F,3,3] in [0,1] (vertex colour
    times the material's factor), `texture_ids` [F] (-1: none). `texels` is every texture as one flat
    [T,4] uint8 array; `textures` [M,3] holds each one's offset, width and height. `cutoffs` [F] is the
    alpha below which a sample is left out (0 for opaque materials).
    """

    corners: NDArray[np.float32]
    normals: NDArray[np.float32]
    uvs: NDArray[np.float32]
    colors: NDArray[np.float32]
    texture_ids: NDArray[np.int32]
    texels: NDArray[np.uint8]
    textures: NDArray[np.int64]
    cutoffs: NDArray[np.float32]


def load_mesh(source: str | Path | bytes, file_type: str | None = None) -> Mesh:
    """Read one asset and normalise it.

    Args:
        source: a path, or the bytes of a self-contained GLB.
        file_type: "glb", "gltf" or "obj"; taken from the path's suffix when not given.

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
    if file_type in ("glb", "gltf"):
        check_gltf(source if isinstance(source, bytes) else Path(source))
    stream = io.BytesIO(source) if isinstance(source, bytes) else str(source)
    try:
        geometries = trimesh.load_scene(stream, file_type=file_type).dump()
    except Exception as error:
        raise ValueError(f"cannot read this {file_type}: {type(error).__name__}: {error}") from error
    meshes = [g for g in geometries if isinstance(g, trimesh.Trimesh) and len(g.faces)]
    num_faces = sum(len(m.faces) for m in meshes)
    if not num_faces:
        raise ValueError("asset has no triangles to render")
    if num_faces > MAX_FACES:
        raise ValueError(f"asset has {num_faces} faces; the limit is {MAX_FACES}: decimate it first")
    return _assemble(meshes)


def turned(mesh: Mesh, rotation: NDArray[np.float32]) -> Mesh:
    """The mesh turned by a rotation [3,3]."""
    return replace(mesh, corners=mesh.corners @ rotation.T, normals=mesh.normals @ rotation.T)


def _assemble(meshes: list) -> Mesh:
    images: dict[int, tuple[int, NDArray[np.uint8]]] = {}
    parts = [_soup(mesh, images) for mesh in meshes]
    corners, normals, uvs, colors, ids, cutoffs = (np.concatenate(column) for column in zip(*parts, strict=True))
    if not np.isfinite(corners).all():
        raise ValueError("asset has non-finite vertices")
    ordered = [pixels for _, pixels in sorted(images.values(), key=lambda pair: pair[0])]
    sizes = [p.shape[0] * p.shape[1] for p in ordered]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    textures = [(offsets[i], p.shape[1], p.shape[0]) for i, p in enumerate(ordered)]
    texels = [p.reshape(-1, 4) for p in ordered]
    return Mesh(
        corners=normalised(corners),
        normals=normals.astype(np.float32),
        uvs=np.nan_to_num(uvs).astype(np.float32),
        colors=colors.astype(np.float32),
        texture_ids=ids.astype(np.int32),
        texels=np.concatenate(texels) if texels else np.zeros((1, 4), np.uint8),
        textures=np.array(textures, np.int64).reshape(-1, 3),
        cutoffs=cutoffs.astype(np.float32),
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


def _soup(mesh, images: dict[int, tuple[int, NDArray[np.uint8]]]) -> tuple[NDArray, ...]:
    """One trimesh geometry as per-corner arrays; new textures are added to `images`."""
    faces = mesh.faces
    count = len(faces)
    uvs, colors = np.zeros((count, 3, 2)), np.ones((count, 3, 3))
    texture_id, cutoff = -1, 0.0
    visual = mesh.visual
    material = getattr(visual, "material", None)
    if visual.kind == "vertex":
        colors = visual.vertex_colors[faces][..., :3] / 255.0
    elif visual.kind == "face":
        colors = np.repeat(visual.face_colors[:, None, :3], 3, axis=1) / 255.0
    elif material is not None:
        factor = getattr(material, "baseColorFactor", None)
        image = getattr(material, "baseColorTexture", None)
        if not hasattr(material, "baseColorFactor"):  # OBJ's simple materials
            image, factor = material.image, None if material.image is not None else material.diffuse
        if factor is not None:
            colors = colors * (np.asarray(factor, float)[:3] / 255.0)
        vertex_colors = getattr(visual, "vertex_attributes", {}).get("color")
        if vertex_colors is not None:
            colors = colors * (vertex_colors[faces][..., :3] / 255.0)
        if image is not None and visual.uv is not None:
            uvs = visual.uv[faces]
            texture_id = _texture(image, images)
        if getattr(material, "alphaMode", None) in ("MASK", "BLEND"):
            cutoff = getattr(material, "alphaCutoff", None) or 0.5
    return (
        mesh.vertices[faces],
        mesh.vertex_normals[faces],
        uvs,
        colors,
        np.full(count, texture_id),
        np.full(count, cutoff),
    )


def _texture(image, images: dict[int, tuple[int, NDArray[np.uint8]]]) -> int:
    if image.size[0] * image.size[1] > MAX_TEXTURE_PIXELS:
        raise ValueError(f"texture of {image.size} pixels passes the limit of {MAX_TEXTURE_PIXELS} pixels")
    if id(image) not in images:
        images[id(image)] = (len(images), np.asarray(image.convert("RGBA")))
    return images[id(image)][0]


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
            mesh.cutoffs, viewmat, np.float32(focal), size * _SUPERSAMPLING,
        )
        for viewmat in viewmats
    ]  # fmt: skip
    return np.stack([_downsample(view) for view in views])


def _downsample(samples: NDArray[np.float32]) -> NDArray[np.uint8]:
    side = samples.shape[0] // _SUPERSAMPLING
    mean = samples.reshape(side, _SUPERSAMPLING, side, _SUPERSAMPLING, 4).mean((1, 3))
    mean[..., :3] += 1 - mean[..., 3:]
    return np.rint(mean * 255).clip(0, 255).astype(np.uint8)


@numba.njit(cache=True)
def _render_view(corners, normals, uvs, colors, texture_ids, texels, textures, cutoffs, viewmat, focal, side):
    """Z-buffer one view; returns premultiplied float32 samples [side,side,4]."""
    depth = np.full((side, side), np.float32(1e9), np.float32)
    image = np.zeros((side, side, 4), np.float32)
    eye = np.empty(3)
    for c in range(3):
        eye[c] = -(viewmat[0, c] * viewmat[0, 3] + viewmat[1, c] * viewmat[1, 3] + viewmat[2, c] * viewmat[2, 3])
    half = side / 2
    px, py, pz = np.empty(3), np.empty(3), np.empty(3)
    for f in range(corners.shape[0]):
        hidden = False
        for c in range(3):
            p = corners[f, c]
            x = viewmat[0, 0] * p[0] + viewmat[0, 1] * p[1] + viewmat[0, 2] * p[2] + viewmat[0, 3]
            y = viewmat[1, 0] * p[0] + viewmat[1, 1] * p[1] + viewmat[1, 2] * p[2] + viewmat[1, 3]
            z = viewmat[2, 0] * p[0] + viewmat[2, 1] * p[1] + viewmat[2, 2] * p[2] + viewmat[2, 3]
            if z < 0.05:
                hidden = True
                break
            px[c], py[c], pz[c] = focal * x / z + half, focal * y / z + half, 1 / z
        if hidden:
            continue
        area = (px[1] - px[0]) * (py[2] - py[0]) - (px[2] - px[0]) * (py[1] - py[0])
        if abs(area) < 1e-9:
            continue
        x0, x1 = max(0, math.floor(px.min() - 0.5)), min(side - 1, math.ceil(px.max()))
        y0, y1 = max(0, math.floor(py.min() - 0.5)), min(side - 1, math.ceil(py.max()))
        for j in range(y0, y1 + 1):
            for i in range(x0, x1 + 1):
                u, v = i + 0.5, j + 0.5
                b0 = ((px[1] - u) * (py[2] - v) - (px[2] - u) * (py[1] - v)) / area
                b1 = ((px[2] - u) * (py[0] - v) - (px[0] - u) * (py[2] - v)) / area
                b2 = 1 - b0 - b1
                if b0 < 0 or b1 < 0 or b2 < 0:
                    continue
                w = b0 * pz[0] + b1 * pz[1] + b2 * pz[2]
                z = 1 / w
                if z < depth[j, i]:
                    b0, b1, b2 = b0 * pz[0] * z, b1 * pz[1] * z, b2 * pz[2] * z
                    if _shade(
                        image[j, i], b0, b1, b2, corners[f], normals[f], uvs[f], colors[f],
                        texture_ids[f], texels, textures, cutoffs[f], eye,
                    ):  # fmt: skip
                        depth[j, i] = z
    return image


@numba.njit(cache=True)
def _shade(pixel, b0, b1, b2, corners, normals, uvs, colors, texture_id, texels, textures, cutoff, eye):
    """Write one lit sample; returns False where the texture's alpha falls below the cutoff."""
    red = b0 * colors[0, 0] + b1 * colors[1, 0] + b2 * colors[2, 0]
    green = b0 * colors[0, 1] + b1 * colors[1, 1] + b2 * colors[2, 1]
    blue = b0 * colors[0, 2] + b1 * colors[1, 2] + b2 * colors[2, 2]
    if texture_id >= 0:
        u = b0 * uvs[0, 0] + b1 * uvs[1, 0] + b2 * uvs[2, 0]
        v = b0 * uvs[0, 1] + b1 * uvs[1, 1] + b2 * uvs[2, 1]
        offset, width, height = textures[texture_id]
        column = min(int((u - math.floor(u)) * width), width - 1)
        row = min(int((1 - (v - math.floor(v))) * height), height - 1)
        texel = texels[offset + row * width + column]
        if texel[3] < cutoff * 255:
            return False
        red, green, blue = red * texel[0] / 255, green * texel[1] / 255, blue * texel[2] / 255
    n = b0 * normals[0] + b1 * normals[1] + b2 * normals[2]
    n = n / (math.sqrt(n[0] * n[0] + n[1] * n[1] + n[2] * n[2]) + 1e-12)
    p = b0 * corners[0] + b1 * corners[1] + b2 * corners[2]
    if (eye[0] - p[0]) * n[0] + (eye[1] - p[1]) * n[1] + (eye[2] - p[2]) * n[2] < 0:
        n = -n
    light = _AMBIENT + _SKY * n[1]
    for k in range(_LIGHTS.shape[0]):
        cosine = n[0] * _LIGHTS[k, 0] + n[1] * _LIGHTS[k, 1] + n[2] * _LIGHTS[k, 2]
        light += _LIGHTS[k, 3] * (0.5 + 0.5 * cosine)
    pixel[0], pixel[1], pixel[2] = min(red * light, 1.0), min(green * light, 1.0), min(blue * light, 1.0)
    pixel[3] = 1.0
    return True
