"""A few bytes that unfold into gigabytes are refused before trimesh sees them."""

import json
import struct

import pytest
import trimesh

from recon.meshes.gltf_limits import check_gltf, unlit_materials
from recon.meshes.load import load_mesh, render_turntable


def glb(document: dict) -> bytes:
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    return struct.pack("<4sII", b"glTF", 2, 20 + len(text)) + struct.pack("<I4s", len(text), b"JSON") + text


def scene(nodes: list[dict], faces: int = 1000, count: int = 3000) -> dict:
    accessors = [{"componentType": 5126, "type": "VEC3", "count": count}, {"componentType": 5125, "type": "SCALAR",
                  "count": 3 * faces}]  # fmt: skip
    primitive = {"attributes": {"POSITION": 0}, "indices": 1}
    return {"asset": {"version": "2.0"}, "accessors": accessors, "meshes": [{"primitives": [primitive]}],
            "nodes": nodes, "scenes": [{"nodes": [0]}], "scene": 0}  # fmt: skip


TREE = [{"children": [k + 1] * 10} for k in range(5)] + [{"mesh": 0}]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (scene([{"children": list(range(1, 3001))}, *[{"mesh": 0}] * 3000]), "over 2000000 faces with its instances"),
        (scene([{"mesh": 0}], count=30_000_000), "accessor 0 has 30000000 elements; the limit is 6000000"),
        (scene([{"children": [0]}]), "a cycle"),
        (scene(TREE, faces=1), "over 100000 nodes"),
        (scene([{"mesh": 3}]), "cannot read this glTF: IndexError"),
        ({"meshes": [7]}, "cannot read this glTF: TypeError"),
        ({"accessors": [{"count": "many"}]}, "cannot read this glTF: TypeError"),
    ],
    ids=["instances", "accessor", "cycle", "tree", "dangling", "foreign", "words"],
)
def test_bombs_are_refused_before_they_are_loaded(document, message, monkeypatch):
    monkeypatch.setattr(trimesh, "load_scene", lambda *a, **k: pytest.fail("trimesh was asked to load it"))
    with pytest.raises(ValueError, match=message):
        load_mesh(glb(document))


def test_deeply_nested_json_is_refused():
    with pytest.raises(ValueError, match="cannot read this glTF"):
        check_gltf(b"[" * 200_000)


def test_an_honest_scene_with_instances_loads(tmp_path):
    box = trimesh.creation.box()
    instances = trimesh.Scene()
    for place in range(3):
        instances.add_geometry(
            box, geom_name="box", transform=trimesh.transformations.translation_matrix([3 * place, 0, 0])
        )
    path = tmp_path / "scene.gltf"
    for name, data in instances.export(file_type="gltf").items():
        (tmp_path / (name if name != "model.gltf" else path.name)).write_bytes(data)
    assert len(load_mesh(path).corners) == 3 * 12
    assert (render_turntable(load_mesh(path), 0.3, 32, 1)[0][..., 3] > 0).any()


@pytest.mark.parametrize("materials", ["[null]", "3", '[{"extensions": 3}]'])
def test_materials_that_are_none_say_so(materials):
    with pytest.raises(ValueError, match="cannot read this glTF"):
        unlit_materials(_written(materials))


def test_a_name_that_a_lit_material_shares_is_lit():
    unlit = '{"name": "%s", "extensions": {"KHR_materials_unlit": {}}}'
    assert unlit_materials(_written(f'[{unlit % "a"}, {unlit % "b"}, {{"name": "b"}}, {{}}]')) == {"a"}


def _written(materials: str) -> bytes:
    return glb({"asset": {"version": "2.0"}, "materials": json.loads(materials)})
