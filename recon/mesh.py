"""Turn Gaussians into a closed, coloured triangle mesh, and that into a GLB (paper A.7): `mesh_of`, `glb_bytes`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from recon.cameras import Cameras
from recon.config import MeshConfig
from recon.gaussians import Gaussians
from recon.lods import Paint, levels_of
from recon.solid import solid_of
from recon.texture import seen_colours

if TYPE_CHECKING:
    from trimesh import Trimesh

LARGEST_MOVE = 0.8
"""How far decimation may move the surface, samples."""


def mesh_of(gaussians: Gaussians, config: MeshConfig | None = None, cameras: Cameras | None = None) -> Trimesh:
    """The finest of `meshes_of`."""
    return meshes_of(gaussians, replace(config or MeshConfig(), lods=0), cameras)[0]


def meshes_of(gaussians: Gaussians, config: MeshConfig, cameras: Cameras | None = None) -> list[Trimesh]:
    """The surface of the solid that the Gaussians cover (`recon.solid.solid_of`), and coarser levels; +y up as in glTF.

    With `config.texture` they have baked textures (see `textured`), else sRGB colours at their vertices.

    Args:
        cameras: of the frames that the Gaussians were fitted to, so that what none of them saw is closed smoothly.

    Raises:
        ValueError: as `solid_of`.
    """
    solid = solid_of(gaussians, config, cameras)
    vertices, faces = solid.surface()
    paint = Paint(
        at=lambda places: solid.colours((places - solid.origin) / solid.step), texels=partial(seen_colours, gaussians)
    )
    return levels_of(vertices * solid.step + solid.origin, faces, solid.step, LARGEST_MOVE, paint, config)


def glb_bytes(mesh: Trimesh | Sequence[Trimesh]) -> bytes:
    """A mesh as binary glTF 2.0 with normals; vertex colours become linear, as glTF's COLOR_0 wants them.

    Its material is unlit (KHR_materials_unlit): the colours hold the light of the views that they were fitted to.

    Args:
        mesh: one, or the levels of one, finest first: the coarser ones are named by the first one's node (MSFT_lod) and
            lie outside of the scene, so that a reader that does not know them shows the first.
    """
    from trimesh import Scene, Trimesh

    levels = [_linear(level) for level in ([mesh] if isinstance(mesh, Trimesh) else mesh)]
    scene = Scene({f"level_{number}": level for number, level in enumerate(levels)})
    exported = scene.export(file_type="glb", include_normals=True, tree_postprocessor=_finish)
    return bytes(exported)  # pyright: ignore[reportArgumentType]


def _linear(mesh: Trimesh) -> Trimesh:
    """The mesh with linear vertex colours, where it has no texture."""
    if mesh.visual.kind == "texture":  # pyright: ignore[reportOptionalMemberAccess]
        return mesh
    srgb = np.asarray(mesh.visual.vertex_colors)[:, :3] / 255  # pyright: ignore
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    mesh = mesh.copy()
    mesh.visual.vertex_colors = (linear * 255).round().astype(np.uint8)  # pyright: ignore
    return mesh


def _finish(tree: dict) -> None:
    """Make the materials of a glTF's JSON unlit, give one to what has none, and chain the levels."""
    materials = tree.setdefault("materials", [])
    for part in tree["meshes"]:
        for primitive in part["primitives"]:
            if "material" not in primitive:
                primitive["material"] = 0
                materials[:] = materials or [{"pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0}}]
    for number, material in enumerate(materials):
        name = "baked" if len(materials) == 1 else f"baked_{number}"
        material |= {"name": name, "extensions": {"KHR_materials_unlit": {}}}
    tree["extensionsUsed"] = [*tree.get("extensionsUsed", []), "KHR_materials_unlit"]
    levels = sorted((node["name"], number) for number, node in enumerate(tree["nodes"]) if "mesh" in node)
    if len(levels) > 1:
        first, *coarser = [number for _, number in levels]
        tree["nodes"][first]["extensions"] = {"MSFT_lod": {"ids": coarser}}
        tree["scenes"][0]["nodes"] = [first]
        tree["extensionsUsed"].append("MSFT_lod")
