"""Load textured meshes (GLB, glTF, OBJ, PLY) and render them without GL: `load_mesh`, `render_turntable`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recon.cameras import Cameras, OrbitConfig, turntable
from recon.meshes.beside import Beside, Opener, opener_of
from recon.meshes.gltf.scene import read_gltf
from recon.meshes.mesh import Mesh, normalised
from recon.meshes.obj import read_obj
from recon.meshes.parts import mesh_of
from recon.meshes.ply import read_ply
from recon.meshes.textures import Textures
from recon.meshes.z_buffer import render_view

MAX_FACES = 2_000_000
MAX_FILE_BYTES = 256 << 20
FILE_TYPES = ("glb", "gltf", "obj", "ply")
_CONVERTERS = {
    "fbx": "FBX2glTF --binary -i IN.fbx -o OUT.glb",
    "usd": "blender --background --python-expr \"import bpy; bpy.ops.wm.usd_import(filepath='IN'); "
           "bpy.ops.export_scene.gltf(filepath='OUT.glb')\"",
}  # fmt: skip

_SUPERSAMPLING = 2


def load_mesh(
    source: str | Path | bytes, file_type: str | None = None, in_place: bool = False, opener: Opener | None = None
) -> Mesh:
    """Read one asset and normalise it.

    Args:
        source: a path, or the bytes of a file.
        file_type: one of `FILE_TYPES`; taken from the path's suffix when not given.
        in_place: leave its size and place as they are.
        opener: reads the files that it names beside itself; those of its folder for a path, none for bytes.

    Raises:
        ValueError: when the file is unreadable, has no faces, holds what is not read (see docs/meshes-in.md) or passes
            a limit (256 MiB with the files beside it, 2 million faces with all instances, 128 million texture pixels).
    """
    file_type = (file_type or ("glb" if isinstance(source, bytes) else Path(source).suffix.lstrip("."))).lower()
    _check_type(file_type)
    if not isinstance(source, bytes) and opener is None:
        opener = opener_of(Path(source).parent, MAX_FILE_BYTES)
    num_bytes = len(source) if isinstance(source, bytes) else Path(source).stat().st_size
    if num_bytes > MAX_FILE_BYTES:
        raise ValueError(f"asset has {num_bytes} bytes; the limit is {MAX_FILE_BYTES}: decimate it first")
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    beside, textures = Beside(opener, MAX_FILE_BYTES), Textures()
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite in the end is refused
            if file_type == "obj":
                parts = read_obj(data, beside, textures, MAX_FACES)
            elif file_type == "ply":
                parts = read_ply(data, MAX_FACES)
            else:
                parts = read_gltf(data, beside, textures, MAX_FACES)
            corners, mesh = mesh_of(parts, textures)
    except ValueError as error:
        raise ValueError(f"cannot read this {file_type}: {error}") from error
    return mesh if in_place else replace(mesh, corners=normalised(corners))


def _check_type(file_type: str) -> None:
    if file_type in FILE_TYPES:
        return
    command = _CONVERTERS.get("usd" if file_type.startswith("usd") else file_type)
    hint = f"; convert it with `{command}`" if command else ""
    raise ValueError(f"file type {file_type!r} is not supported. Available: {', '.join(FILE_TYPES)}{hint}")


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
    return render_mesh(mesh, turntable(elevation, size, OrbitConfig(num_views=num_views), start_azimuth))


def render_mesh(mesh: Mesh, cameras: Cameras) -> NDArray[np.uint8]:
    """`render_turntable` by any cameras whose axis goes through the middle of their square pictures.

    Raises:
        ValueError: when their size is out of [8, 4096].
    """
    size = cameras.size
    if not 8 <= size <= 4096:
        raise ValueError(f"size is {size}; it must lie in [8, 4096] pixels")
    views = [
        render_view(
            mesh.corners, mesh.normals, mesh.uvs, mesh.colors, mesh.alphas, mesh.texture_ids, mesh.texels,
            mesh.textures, mesh.cutoffs, mesh.lit, mesh.emissions, mesh.emission_ids, mesh.emission_uvs, viewmat,
            np.float32(float(K[0, 0]) * _SUPERSAMPLING), size * _SUPERSAMPLING,
        )
        for viewmat, K in zip(cameras.viewmats.numpy().astype(np.float32), cameras.Ks)
    ]  # fmt: skip
    return np.stack([_downsample(view) for view in views])


def check_drawn(views: NDArray[np.uint8]) -> None:
    """Refuse pictures [V,S,S,4] of which none shows anything.

    Raises:
        ValueError: when all are empty.
    """
    if not views[..., 3].any():
        raise ValueError(
            f"nothing of the asset is seen in any of {len(views)} views: it is flat and seen edge-on, wholly "
            "transparent, or tiny beside something far away"
        )


def _downsample(samples: NDArray[np.float32]) -> NDArray[np.uint8]:
    offsets = range(_SUPERSAMPLING)
    mean = np.mean([samples[a::_SUPERSAMPLING, b::_SUPERSAMPLING] for a in offsets for b in offsets], 0)
    mean[..., :3] += 1 - mean[..., 3:]
    return np.rint(mean * 255).clip(0, 255).astype(np.uint8)
