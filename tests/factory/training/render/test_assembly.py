"""Objects put together from meshes and solids."""

import io

import numpy as np
import pytest
import trimesh
from PIL import Image

from factory.training.render.assembly import MOST_PARTS, assembled, solid
from factory.training.render.line import RenderWork
from factory.training.render.settings import RenderConfig
from recon.meshes.load import Mesh, load_mesh, render_turntable


def textured_box() -> Mesh:
    box = trimesh.creation.box((1, 1, 1))
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.new("RGB", (8, 4), (255, 0, 255)))
    box.visual = trimesh.visual.TextureVisuals(uv=np.full((len(box.vertices), 2), 0.5), material=material)
    stream = io.BytesIO()
    box.export(stream, file_type="glb")
    return load_mesh(stream.getvalue())


@pytest.mark.parametrize("seed", range(12))
def test_solids_are_closed_and_face_outwards(seed: int) -> None:
    mesh = solid(np.random.default_rng(seed))
    surface = trimesh.Trimesh(mesh.corners.reshape(-1, 3), np.arange(3 * len(mesh.corners)).reshape(-1, 3))
    surface.merge_vertices(digits_vertex=5)
    assert surface.is_watertight
    assert surface.volume > 0
    edges = mesh.corners[:, 1:] - mesh.corners[:, :1]
    assert ((mesh.normals.mean(1) * np.cross(edges[:, 0], edges[:, 1])).sum(-1) > 0).all()
    assert np.abs(np.linalg.norm(mesh.normals, axis=-1) - 1).max() < 1e-5
    assert np.linalg.norm(mesh.corners, axis=-1).max() == pytest.approx(1)


def test_assemblies_differ_by_seed_alone_and_fill_the_unit_sphere() -> None:
    box = textured_box()
    first, again, other = (assembled([box], np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first.corners, again.corners)
    assert first.corners.shape != other.corners.shape or not np.allclose(first.corners, other.corners)
    for seed in range(30):
        mesh = assembled([box], np.random.default_rng(seed))
        assert np.linalg.norm(mesh.corners, axis=-1).max() == pytest.approx(1, abs=1e-5)
        assert np.isfinite(mesh.normals).all()
        assert mesh.texture_ids.max() < len(mesh.textures)
        assert len(mesh.corners) <= MOST_PARTS * 6 * 2 * 16 * 8


def test_parts_keep_their_colours() -> None:
    meshes = [assembled([textured_box()], np.random.default_rng(seed)) for seed in range(8)]
    views = np.concatenate([render_turntable(mesh, 0.3, 64, num_views=4) for mesh in meshes]).astype(int)
    magenta = (views[..., 0] > views[..., 1] + 60) & (views[..., 2] > views[..., 1] + 60) & (views[..., 1] < 30)
    assert magenta.any((1, 2)).sum() >= 4
    assert (views[..., 3] > 0).any((1, 2)).all()


def test_the_share_of_assemblies_is_drawn_by_turntable_and_names_another_asset() -> None:
    assets = [{"asset_id": n, "path": f"{n}.glb", "error": None} for n in "ab"]
    work = RenderWork(assets=assets, config=RenderConfig(turntables=300, assemblies=0.4))
    rows = [work.row(number, 1) for number in range(600)]
    assert 0.33 < np.mean([row["assembled"] for row in rows]) < 0.47
    assert {row["companion"] for row in rows if not row["assembled"]} == {None}
    assert {row["companion"] for row in rows if row["assembled"] and row["asset_id"] == "a"} == {"b.glb", None}
    held_back = [asset | {"asset_id": "v", "path": "v.glb", "split": "val"} for asset in assets[:1]]
    mixed = RenderWork(assets=[*assets, *held_back], config=RenderConfig(turntables=300, assemblies=0.4))
    assert "v.glb" not in {mixed.row(number, 1)["companion"] for number in range(len(mixed.ids))}
    with pytest.raises(ValueError, match=r"assemblies is 1.5; it must lie in \[0, 1\]"):
        RenderConfig(assemblies=1.5)
