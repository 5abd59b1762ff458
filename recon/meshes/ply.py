"""Read PLY meshes: `read_ply`."""

from __future__ import annotations

import io
import re
from typing import Any, cast

import numpy as np

from recon.meshes.parts import Look, Part, flat_normals


def read_ply(data: bytes, max_faces: int) -> list[Part]:
    """The triangles of a PLY, with the colours of its vertices or faces as sRGB; flat where it has no normals.

    Raises:
        ValueError: when it is broken, holds no faces, has over `max_faces` or names a texture.
    """
    import trimesh

    header = data[: max(data.find(b"end_header"), 0)]
    if re.search(rb"^comment +TextureFile", header, re.MULTILINE):
        raise ValueError("textures of a PLY are not read; convert it to GLB")
    for kind, limit in ((b"face", max_faces), (b"vertex", 3 * max_faces)):
        found = re.search(rb"^element +%s +(\d+)" % kind, header, re.MULTILINE)
        if found and int(found[1]) > limit:
            number = f"{int(found[1])} elements of kind {kind.decode()}"
            raise ValueError(f"asset has {number}; the limit is {limit}: decimate it first")
    try:
        mesh = trimesh.load_mesh(io.BytesIO(data), file_type="ply", process=False)
    except Exception as error:  # the parser meets broken files with whatever comes
        raise ValueError(f"{type(error).__name__}: {str(error)[:200]}") from error
    if not isinstance(mesh, trimesh.Trimesh) or not len(mesh.faces):
        raise ValueError("asset has no triangles to render")
    if len(mesh.faces) > max_faces:
        raise ValueError(f"asset has {len(mesh.faces)} faces; the limit is {max_faces}: decimate it first")
    faces, visual = mesh.faces, cast(Any, mesh.visual)
    if faces.max() >= len(mesh.vertices) or faces.min() < 0:
        raise ValueError(f"a face names vertex {faces.max()}; there are {len(mesh.vertices)}")
    colors = np.ones((len(faces), 3, 3))
    if visual.kind == "vertex":
        colors = visual.vertex_colors[faces][..., :3] / 255.0
    elif visual.kind == "face":
        colors = np.repeat(visual.face_colors[:, None, :3], 3, axis=1) / 255.0
    corners = np.asarray(mesh.vertices, np.float64)[faces]
    has_normals = re.search(rb"^property +\w+ +nx", header, re.MULTILINE)
    nowhere = np.broadcast_to(0.0, (len(faces), 3, 2))
    return [
        Part(
            corners=corners,
            normals=np.asarray(mesh.vertex_normals)[faces] if has_normals else flat_normals(corners),
            colors=colors,
            alphas=np.broadcast_to(1.0, faces.shape),
            uvs=nowhere,
            emission_uvs=nowhere,
            look=Look(),
        )
    ]
