"""Write a mesh as USD or USDZ, in metres and +y up, by Pixar's own library: `usd_files`, `usdz_bytes`."""

# pyright: reportAttributeAccessIssue=false
# The modules of pxr are made of C++ and tell no types.

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from factory.outputs.glb import Glb
from recon.user_error import UserError

ROOT = "/Asset"
TEXTURE = "textures/colour.png"


def require_usd() -> None:
    """Raise UserError, in one sentence, where usd-core is not installed."""
    try:
        import pxr  # noqa: F401
    except ImportError as error:
        raise UserError('usd-core is not installed: `pip install -c constraints.txt ".[exports]"` brings it') from error


def usd_files(glb: bytes, notes: Mapping[str, Any], factor: float = 1.0) -> dict[str, bytes]:
    """The files of a stage by name: `asset.usdc`, and the texture that it refers to where the mesh has one.

    Args:
        glb: one mesh, +y up, with a texture or colours at its vertices.
        notes: JSON values, kept in the `customData` of the root prim.
        factor: metres a unit of the mesh.

    Raises:
        ValueError: when the GLB holds no triangles.
    """
    with tempfile.TemporaryDirectory() as folder:
        _write_stage(glb, notes, factor, Path(folder))
        paths = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def usdz_bytes(glb: bytes, notes: Mapping[str, Any], factor: float = 1.0) -> bytes:
    """The same stage as one USDZ package; arguments and errors of `usd_files`."""
    from pxr import Sdf, UsdUtils

    with tempfile.TemporaryDirectory() as folder:
        stage, package = _write_stage(glb, notes, factor, Path(folder)), Path(folder, "asset.usdz")
        if not UsdUtils.CreateNewUsdzPackage(Sdf.AssetPath(str(stage)), str(package)):
            raise ValueError("usd-core could not pack the USDZ; export the asset as usd")
        return package.read_bytes()


def _write_stage(glb: bytes, notes: Mapping[str, Any], factor: float, folder: Path) -> Path:
    """Write the stage and its texture into a folder; returns the stage's path."""
    import trimesh
    from pxr import Usd, UsdGeom

    mesh: Any = trimesh.load(io.BytesIO(glb), file_type="glb", force="mesh", process=False)
    if not len(getattr(mesh, "faces", ())):
        raise ValueError("the mesh has 0 triangles; make the asset again")
    path = folder / "asset.usdc"
    stage = Usd.Stage.CreateNew(str(path))
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y)
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    root = UsdGeom.Xform.Define(stage, ROOT)
    Usd.ModelAPI(root.GetPrim()).SetKind("component")
    stage.SetDefaultPrim(root.GetPrim())
    for name, value in notes.items():
        text = value if isinstance(value, str | int | float) else json.dumps(value, sort_keys=True)
        root.GetPrim().SetCustomDataByKey(f"im3d:{name}", text)
    source = Glb.parse(glb)
    geometry = _geometry(stage, mesh, source.vertex_colours(), factor)
    if _has_texture(mesh):  # without one, viewers show the colours at the vertices by themselves
        _material(stage, geometry, mesh.visual.material, _is_unlit(source), folder)
    stage.GetRootLayer().Save()
    return path


def _geometry(stage: Any, mesh: Any, colours: NDArray[np.float32] | None, factor: float) -> Any:
    """The mesh as a prim: points in metres, triangles, normals, texture coordinates or colours at the vertices."""
    from pxr import Sdf, UsdGeom, Vt

    prim = UsdGeom.Mesh.Define(stage, f"{ROOT}/Mesh")
    points = np.ascontiguousarray(mesh.vertices * factor, np.float32)
    prim.CreatePointsAttr(Vt.Vec3fArray.FromNumpy(points))
    prim.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(np.ascontiguousarray(mesh.faces.ravel(), np.int32)))
    prim.CreateFaceVertexCountsAttr(Vt.IntArray.FromNumpy(np.full(len(mesh.faces), 3, np.int32)))
    prim.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
    prim.CreateNormalsAttr(Vt.Vec3fArray.FromNumpy(np.ascontiguousarray(mesh.vertex_normals, np.float32)))
    prim.SetNormalsInterpolation(UsdGeom.Tokens.vertex)
    prim.CreateExtentAttr(Vt.Vec3fArray.FromNumpy(np.stack([points.min(0), points.max(0)])))
    primvars = UsdGeom.PrimvarsAPI(prim)
    if _has_texture(mesh):
        coordinates = primvars.CreatePrimvar("st", Sdf.ValueTypeNames.TexCoord2fArray, UsdGeom.Tokens.vertex)
        coordinates.Set(Vt.Vec2fArray.FromNumpy(np.ascontiguousarray(mesh.visual.uv, np.float32)))
    elif colours is not None and len(colours) == len(points):  # COLOR_0 is linear, as displayColor is
        prim.CreateDisplayColorPrimvar(UsdGeom.Tokens.vertex).Set(Vt.Vec3fArray.FromNumpy(colours))
    return prim


def _has_texture(mesh: Any) -> bool:
    material = getattr(mesh.visual, "material", None)
    return getattr(mesh.visual, "uv", None) is not None and getattr(material, "baseColorTexture", None) is not None


def _material(stage: Any, geometry: Any, pbr: Any, unlit: bool, folder: Path) -> None:
    """A UsdPreviewSurface with the texture of a glTF material: what is unlit shines by itself, the rest reflects."""
    from pxr import Gf, Sdf, UsdShade

    material = UsdShade.Material.Define(stage, f"{ROOT}/Material")
    surface = UsdShade.Shader.Define(stage, f"{ROOT}/Material/Surface")
    surface.CreateIdAttr("UsdPreviewSurface")
    for name, factor in (("roughness", "roughnessFactor"), ("metallic", "metallicFactor")):
        value = getattr(pbr, factor, None)
        value = float(name == "roughness") if unlit or value is None else float(value)
        surface.CreateInput(name, Sdf.ValueTypeNames.Float).Set(value)
    colour = surface.CreateInput("emissiveColor" if unlit else "diffuseColor", Sdf.ValueTypeNames.Color3f)
    if unlit:
        surface.CreateInput("diffuseColor", Sdf.ValueTypeNames.Color3f).Set(Gf.Vec3f(0))
    colour.ConnectToSource(_texture(stage, pbr.baseColorTexture, folder))
    material.CreateSurfaceOutput().ConnectToSource(surface.ConnectableAPI(), "surface")
    UsdShade.MaterialBindingAPI.Apply(geometry.GetPrim()).Bind(material)


def _texture(stage: Any, picture: Any, folder: Path) -> Any:
    """The colour of a texture, as an output to connect to."""
    from pxr import Sdf, UsdShade

    (folder / TEXTURE).parent.mkdir()
    picture.convert("RGB").save(folder / TEXTURE)
    shader = UsdShade.Shader.Define(stage, f"{ROOT}/Material/Texture")
    shader.CreateIdAttr("UsdUVTexture")
    shader.CreateInput("file", Sdf.ValueTypeNames.Asset).Set(f"./{TEXTURE}")
    shader.CreateInput("sourceColorSpace", Sdf.ValueTypeNames.Token).Set("sRGB")
    for axis in ("wrapS", "wrapT"):
        shader.CreateInput(axis, Sdf.ValueTypeNames.Token).Set("clamp")
    reader = UsdShade.Shader.Define(stage, f"{ROOT}/Material/Coordinates")
    reader.CreateIdAttr("UsdPrimvarReader_float2")
    reader.CreateInput("varname", Sdf.ValueTypeNames.String).Set("st")
    coordinates = reader.CreateOutput("result", Sdf.ValueTypeNames.Float2)
    shader.CreateInput("st", Sdf.ValueTypeNames.Float2).ConnectToSource(coordinates)
    return shader.CreateOutput("rgb", Sdf.ValueTypeNames.Float3)


def _is_unlit(glb: Glb) -> bool:
    materials = glb.tree.get("materials", [])
    return any("KHR_materials_unlit" in material.get("extensions", {}) for material in materials)
