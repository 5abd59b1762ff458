"""What independent readers see of exported meshes: trimesh and Khronos' validator of GLB, tinyusdz of USD."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image

from factory.outputs.glb import Glb
from factory.outputs.usd import usd_files, usdz_bytes
from recon.mesh import glb_bytes

NOTES = {"prompt": 'a "red" ball', "seed": 3, "license": "apache-2.0", "models": {"image": {"model": "pocket"}}}


def ball(textured: bool) -> bytes:
    """A ball of radius 0.5 as the line writes meshes: red above, blue below."""
    mesh = trimesh.creation.icosphere(3, 0.5)
    if textured:
        uv = np.stack([np.full(len(mesh.vertices), 0.5), mesh.vertices[:, 1] + 0.5], 1)
        picture = Image.fromarray(np.array([[[255, 0, 0]], [[0, 0, 255]]], np.uint8))
        mesh.visual = trimesh.visual.TextureVisuals(uv, image=picture)
    else:
        mesh.visual.vertex_colors = np.where(mesh.vertices[:, 1:2] > 0, [[255, 0, 0, 255]], [[0, 0, 255, 255]])
    return glb_bytes(mesh)


@pytest.mark.parametrize("textured", [False, True])
def test_levels_size_and_notes_are_read(
    textured: bool, gltf_issues: Callable[[Path], dict[str, Any]], tmp_path: Path
) -> None:
    glb = Glb.parse(ball(textured))
    assert glb.longest_side() == pytest.approx(1.0, abs=0.01)
    glb.add_levels((0.5, 0.1))
    glb.scale(0.3 / glb.longest_side())
    glb.note(NOTES)
    (tmp_path / "ball.glb").write_bytes(glb.to_bytes())
    report = gltf_issues(tmp_path / "ball.glb")
    assert report["issues"]["numErrors"] == 0, report["issues"]["messages"]
    assert report["issues"]["numWarnings"] == 0, report["issues"]["messages"]
    assert report["info"]["extensionsUsed"] == ["KHR_materials_unlit", "MSFT_lod"]
    scene = trimesh.load(tmp_path / "ball.glb")
    assert scene.extents.max() == pytest.approx(0.3)
    assert len(scene.graph.nodes_geometry) == 1, "a reader without levels shows the finest alone"
    faces = sorted((len(part.faces) for part in scene.geometry.values()), reverse=True)
    assert faces == pytest.approx([1280, 640, 128], rel=0.05)
    for part in scene.geometry.values():
        assert np.linalg.norm(part.vertices[part.faces].reshape(-1, 3), axis=1) == pytest.approx(0.5, abs=0.01)
    tree = Glb.parse((tmp_path / "ball.glb").read_bytes()).tree
    assert tree["asset"]["extras"] == NOTES


def test_levels_that_are_there_are_kept() -> None:
    glb = Glb.parse(ball(False))
    glb.add_levels((0.5,))
    before = glb.to_bytes()
    glb.add_levels((0.25, 0.1))
    assert glb.to_bytes() == before


@pytest.mark.parametrize("data", [b"", b"glTF" + bytes(30), ball(False)[:100]])
def test_a_file_that_is_no_glb_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"no (whole )?binary glTF"):
        Glb.parse(data)


@pytest.mark.parametrize("textured", [False, True])
def test_tinyusdz_reads_metres_up_axis_and_geometry(textured: bool, tmp_path: Path) -> None:
    tinyusdz = pytest.importorskip("tinyusdz")
    for name, data in usd_files(ball(textured), NOTES, 0.3).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    (tmp_path / "ball.usdz").write_bytes(usdz_bytes(ball(textured), NOTES, 0.3))
    for path in (tmp_path / "asset.usdc", tmp_path / "ball.usdz"):
        stage = tinyusdz.load(str(path))
        assert (stage.get_metadata("upAxis"), stage.get_metadata("metersPerUnit")) == ("Y", 1.0)
        (mesh,) = tinyusdz.tydra.convert_to_render_scene(stage).meshes()
        points = np.asarray(mesh.points).reshape(-1, 3)
        assert np.linalg.norm(points, axis=1) == pytest.approx(0.15, rel=1e-4)
        assert len(np.asarray(mesh.face_vertex_counts)) == 1280
    if not textured:
        prim = stage.get_prim_at_path("/Asset/Mesh")
        colours = np.asarray(prim.get_attribute("primvars:displayColor").value).reshape(-1, 3)
        assert (colours[points[:, 1] > 0.01] == (1, 0, 0)).all()
    else:
        picture = Image.open(io.BytesIO((tmp_path / "textures/colour.png").read_bytes()))
        assert [picture.getpixel((0, y)) for y in (0, 1)] == [(255, 0, 0), (0, 0, 255)]


def problems(path: Path) -> list[str]:
    """What usdchecker's validators say of a stage."""
    from pxr import Usd, UsdValidation

    registry = UsdValidation.ValidationRegistry()
    names = [about.name for about in registry.GetAllValidatorMetadata()]
    context = UsdValidation.ValidationContext([registry.GetOrLoadValidatorByName(name) for name in names])
    return [str(found.GetName()) for found in context.Validate(Usd.Stage.Open(str(path)))]


@pytest.mark.parametrize("textured", [False, True])
def test_usdchecker_finds_nothing_and_notes_are_in_the_stage(textured: bool, tmp_path: Path) -> None:
    from pxr import Sdf, Usd, UsdGeom

    (tmp_path / "ball.usdz").write_bytes(usdz_bytes(ball(textured), NOTES))
    assert problems(tmp_path / "ball.usdz") == []
    stage = Usd.Stage.Open(str(tmp_path / "ball.usdz"))
    data = stage.GetDefaultPrim().GetCustomData()["im3d"]
    assert (data["prompt"], data["seed"], data["license"]) == (NOTES["prompt"], 3, "apache-2.0")
    bare = Usd.Stage.CreateNew(str(tmp_path / "bare.usda"))
    UsdGeom.Mesh.Define(bare, Sdf.Path("/Mesh"))
    bare.Save()
    assert problems(tmp_path / "bare.usda"), "the validators do find what is missing"


def test_a_mesh_without_triangles_is_refused() -> None:
    empty = Glb.parse(ball(False))
    empty.tree["scenes"], empty.tree["nodes"] = [{"nodes": []}], []
    with pytest.raises(ValueError, match="0 triangles"):
        usdz_bytes(empty.to_bytes(), NOTES)
