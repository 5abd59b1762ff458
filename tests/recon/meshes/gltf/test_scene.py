"""Where things stand, how often, and what unfolds into too much."""

import numpy as np
import pytest

from recon.meshes.load import load_mesh
from tests.recon.meshes.gltf_writer import QUAD, Gltf

HALF = 0.5**0.5
TURN = [0, 0, HALF, HALF]
"""A right angle about z: x becomes y."""


def corners(gltf: Gltf) -> np.ndarray:
    return load_mesh(gltf.glb(), in_place=True).corners


def first(gltf: Gltf) -> list[float]:
    """The third corner of the first triangle, (1, 1, 0) in its own space."""
    return corners(gltf)[0, 2].round(5).tolist()


def test_a_matrix_is_what_translation_rotation_and_scale_are():
    moved = {"translation": [5, 6, 7], "rotation": TURN, "scale": [2, 3, 4]}
    matrix = [0, 2, 0, 0, -3, 0, 0, 0, 0, 0, 4, 0, 5, 6, 7, 1]
    for node in (moved, {"matrix": matrix}):
        gltf = Gltf()
        assert first(gltf.draw(gltf.quad(), **node)) == [2, 8, 7]


def test_a_quaternion_need_not_be_of_length_one_but_not_of_none():
    gltf = Gltf()
    assert first(gltf.draw(gltf.quad(), rotation=[0, 0, 3, 3])) == [-1, 1, 0]
    gltf = Gltf()
    with pytest.raises(ValueError, match="a quaternion of length 0"):
        first(gltf.draw(gltf.quad(), rotation=[0, 0, 0, 0]))


def test_children_stand_in_their_parents_space():
    gltf = Gltf()
    gltf.add("nodes", {"rotation": TURN, "children": [1]})
    gltf.add("nodes", {"translation": [10, 0, 0], "mesh": gltf.mesh(gltf.quad())})
    gltf.root["scenes"] = [{"nodes": [0]}]
    assert first(gltf) == [-1, 11, 0]


def test_a_mirrored_mesh_keeps_its_normals_outward():
    gltf = Gltf()
    normals = gltf.accessor([[HALF, 0, HALF]] * 4)
    mesh = load_mesh(gltf.draw(gltf.quad(NORMAL=normals), scale=[-2, 1, 1]).glb(), in_place=True)
    assert mesh.corners[0].tolist() == [[2, -1, 0], [-2, -1, 0], [-2, 1, 0]]
    found = mesh.normals[0, 0] * np.sign(mesh.normals[0, 0, 2])
    assert found == pytest.approx([-1 / 5**0.5, 0, 2 / 5**0.5])


def places(gltf: Gltf) -> list[float]:
    """The x that the quads stand at."""
    return sorted({round(float(x), 3) for x in corners(gltf).mean(1)[::2, 0] - np.mean([-1, 1, 1])})


def two_scenes() -> Gltf:
    gltf = Gltf()
    mesh = gltf.mesh(gltf.quad())
    for x in range(4):
        gltf.add("nodes", {"mesh": mesh, "translation": [10 * x, 0, 0]})
    gltf.root["nodes"][2]["children"] = [3]
    return gltf


def test_the_scene_that_the_file_names_is_drawn_alone():
    gltf = two_scenes()
    gltf.root |= {"scenes": [{"nodes": [0]}, {"nodes": [1]}], "scene": 1}
    assert places(gltf) == [10]
    gltf.root.pop("scene")
    assert places(gltf) == [0]
    gltf.root.pop("scenes")
    assert places(gltf) == [0, 10, 20, 50]
    gltf.root["scene"] = 7
    gltf.root["scenes"] = [{"nodes": [0]}]
    with pytest.raises(ValueError, match=r"scenes\[7\] is asked for; the file has 1 scenes"):
        places(gltf)
    gltf.root |= {"scene": 0, "scenes": [{}]}
    with pytest.raises(ValueError, match="no triangles"):
        places(gltf)


def test_nodes_that_are_not_visible_hide_their_children():
    gltf = two_scenes()
    gltf.root["nodes"][2]["extensions"] = {"KHR_node_visibility": {"visible": False}}
    assert places(gltf) == [0, 10]


def instanced(**attributes: int) -> dict:
    return {"extensions": {"EXT_mesh_gpu_instancing": {"attributes": attributes}}}


def test_instances_stand_where_their_lists_say():
    gltf = Gltf(extensionsRequired=["EXT_mesh_gpu_instancing"])
    at = gltf.accessor([[-2, 0, 0], [2, 0, 0], [7, 0, 0]])
    gltf.draw(gltf.quad(), translation=[100, 0, 0], **instanced(TRANSLATION=at))
    assert places(gltf) == [98, 102, 107]


def test_instances_are_scaled_turned_and_moved_in_their_nodes_space():
    gltf = Gltf()
    turn = gltf.accessor([np.rint(np.array(TURN) * 32767), [0, 0, 0, 32767]], "i2", normalized=True)
    lists = {"TRANSLATION": gltf.accessor([[1, 0, 0], [0, 0, 9]]), "SCALE": gltf.accessor([[2, 3, 1], [1, 1, 1]])}
    gltf.draw(gltf.quad(), rotation=TURN, **instanced(ROTATION=turn, **lists))
    found = corners(gltf)
    assert found[0, 2] == pytest.approx([-2, -2, 0], abs=1e-3)
    assert found[2, 2] == pytest.approx([-1, 1, 9], abs=1e-3)


@pytest.mark.parametrize("counts", [(2, 3), ()])
def test_lists_of_instances_have_one_length(counts):
    gltf = Gltf()
    names = ("TRANSLATION", "SCALE")[: len(counts)]
    lists = {name: gltf.accessor(np.ones((count, 3))) for name, count in zip(names, counts)}
    with pytest.raises(ValueError, match="it must be one number"):
        corners(gltf.draw(gltf.quad(), **instanced(**lists)))


def bomb(nodes: list[dict], faces: int = 1000) -> Gltf:
    """Many triangles said, none held."""
    gltf = Gltf(nodes=nodes, scenes=[{"nodes": [0]}])
    shape = {"componentType": 5126, "type": "VEC3", "count": 3 * faces}
    gltf.mesh({"attributes": {"POSITION": gltf.add("accessors", shape)}})
    return gltf


@pytest.mark.parametrize(
    ("gltf", "message"),
    [
        (bomb([{"children": list(range(1, 3001))}, *[{"mesh": 0}] * 3000]), "over 2000000 faces with its instances"),
        (bomb([{"mesh": 0}], 10**7), "30000000 elements; the limit is 6000000"),
        (bomb([{"children": [0]}]), "reached twice, or holds itself"),
        (bomb([{"children": [1]}, {"children": [2]}, {"children": [1]}]), "is the child of two nodes"),
        (bomb([{"children": [1]}, {"children": [0], "mesh": 0}]), "reached twice, or holds itself|a cycle"),
        (bomb([{"children": [k + 1] * 10} for k in range(5)]), "is the child of two nodes|has child 5"),
        (bomb([{}] * 100_001), "over 100000 nodes"),
        (bomb([{"mesh": 3}]), r"meshes\[3\] is asked for"),
        (bomb([{"mesh": 0, "scale": [1e300, 1e300, 1]}, {}]), "normals that are no finite numbers"),
        (bomb([{"mesh": 0, "translation": [1e30, 0, 0]}]), r"coordinate of 1e\+30; the limit is 1e\+15"),
        (bomb([7]), r"nodes\[0\] is 7; it must be an object"),
        (bomb("all"), "nodes is 'all'; it must be a list"),
        (bomb([{"mesh": 0, "matrix": [1, 2]}]), "matrix is .*; it must be a list of 16 numbers"),
        (bomb([{"mesh": 0, "children": [-1]}]), "it must be a whole number"),
    ],
    ids=lambda value: "" if isinstance(value, Gltf) else value[:20],
)
def test_bombs_and_broken_scenes_are_refused(gltf, message):
    with pytest.raises(ValueError, match=message):
        load_mesh(gltf.glb())


def test_instances_count_toward_the_limit_before_they_are_made():
    gltf = bomb([{"mesh": 0} | instanced(TRANSLATION=0)], 1000)
    gltf.root["accessors"].append({"componentType": 5126, "type": "VEC3", "count": 99_999})
    gltf.root["nodes"][0]["extensions"]["EXT_mesh_gpu_instancing"]["attributes"]["TRANSLATION"] = 1
    with pytest.raises(ValueError, match="over 2000000 faces with its instances"):
        load_mesh(gltf.glb())
    gltf.root["accessors"][1]["count"] = 100_001
    with pytest.raises(ValueError, match="up to 100000"):
        load_mesh(gltf.glb())


def test_a_deep_chain_of_nodes_is_walked():
    nodes = [{"children": [k + 1], "translation": [1, 0, 0]} for k in range(20_000)]
    gltf = Gltf(scenes=[{"nodes": [0]}])
    gltf.root["nodes"] = [*nodes, {"mesh": gltf.mesh(gltf.quad())}]
    assert first(gltf) == [20_001, 1, 0]


@pytest.mark.parametrize("size", [1e-30, 1e-3, 1.0, 1e14])
def test_small_and_large_assets_look_alike(size):
    gltf = Gltf()
    asset = load_mesh(gltf.draw(gltf.quad(POSITION=gltf.accessor(np.array(QUAD) * size))).glb())
    assert asset.corners[0] == pytest.approx(np.array(QUAD)[[0, 1, 2]] * HALF, abs=1e-6)
