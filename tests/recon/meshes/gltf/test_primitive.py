"""Triangles of every kind of primitive, moved by targets and joints."""

import numpy as np
import pytest

from recon.meshes.load import load_mesh
from tests.recon.meshes.gltf_writer import QUAD, Gltf, front


def corners(gltf: Gltf) -> list:
    return load_mesh(gltf.glb(), in_place=True).corners.tolist()


@pytest.mark.parametrize(
    ("mode", "indices", "triangles"),
    [
        (4, [0, 1, 2, 0, 2, 3], [[0, 1, 2], [0, 2, 3]]),
        (4, [0, 1, 2, 0, 2], [[0, 1, 2]]),
        (5, [1, 2, 0, 3], [[1, 2, 0], [2, 3, 0]]),
        (5, [1, 2, 0, 3, 1], [[1, 2, 0], [2, 3, 0], [0, 3, 1]]),
        (6, [0, 1, 2, 3], [[1, 2, 0], [2, 3, 0]]),
        (4, None, [[0, 1, 2]]),
        (5, None, [[0, 1, 2], [1, 3, 2]]),
        (6, None, [[1, 2, 0], [2, 3, 0]]),
    ],
)
def test_triangles_strips_and_fans_with_and_without_indices(mode, indices, triangles):
    gltf = Gltf()
    quad = gltf.quad() | {"mode": mode}
    if indices is None:
        quad.pop("indices")
    else:
        quad["indices"] = gltf.accessor(indices, "u2")
    assert corners(gltf.draw(quad)) == [[QUAD[k] for k in triangle] for triangle in triangles]


@pytest.mark.parametrize("mode", [5, 6])
def test_triangles_of_strips_and_fans_face_the_same_way(mode):
    gltf = Gltf()
    quad = gltf.quad() | {"mode": mode, "indices": gltf.accessor([0, 1, 3, 2] if mode == 5 else [0, 1, 2, 3], "u1")}
    assert load_mesh(gltf.draw(quad).glb()).normals[..., 2].tolist() == [[1, 1, 1], [1, 1, 1]]


def test_primitives_lie_beside_each_other():
    gltf = Gltf()
    white, black = (gltf.material([shade, shade, shade, 1]) for shade in (1, 0))
    left = gltf.quad(white) | {"mode": 6, "indices": gltf.accessor([0, 1, 2], "u1")}
    right = gltf.quad(black) | {"indices": gltf.accessor([0, 2, 3], "u1")}
    view = front(gltf.draw(left, right).glb())
    assert [view[row, column, 0] for row, column in ((24, 28), (40, 36))] == [0, 255]
    assert view[24, 28, 3] == view[40, 36, 3] == 255


@pytest.mark.parametrize(("mode", "word"), [(0, "POINTS"), (1, "LINES"), (2, "LINE_LOOP"), (3, "LINE_STRIP")])
def test_points_and_lines_are_refused_beside_triangles_too(mode, word):
    gltf = Gltf()
    with pytest.raises(ValueError, match=rf"meshes\[0\].primitives\[1\] draws {word}"):
        corners(gltf.draw(gltf.quad(), gltf.quad() | {"mode": mode}))


def test_a_primitive_without_places_draws_nothing():
    gltf = Gltf()
    assert len(corners(gltf.draw({"attributes": {}}, gltf.quad()))) == 2
    with pytest.raises(ValueError, match="no triangles"):
        corners(Gltf().draw({"attributes": {}}))


def test_normals_are_the_files_and_flat_without():
    gltf = Gltf()
    slanted = [[0, 3, 4]] * 4
    assert load_mesh(gltf.draw(gltf.quad(NORMAL=gltf.accessor(slanted))).glb()).normals == pytest.approx(
        np.tile([0, 0.6, 0.8], (2, 3, 1))
    )
    folded = Gltf()
    places = folded.accessor([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 1]])
    normals = load_mesh(folded.draw(folded.quad(POSITION=places)).glb()).normals
    assert normals[0].tolist() == [[0, 0, 1]] * 3
    assert normals[1] == pytest.approx(np.tile([0.5**0.5, -(0.5**0.5), 0], (3, 1)))


def test_morph_targets_move_by_the_nodes_weights_and_else_the_meshs():
    gltf = Gltf()
    first, second = (gltf.accessor(np.tile(move, (4, 1))) for move in ([8, 0, 0], [0, 4, 0]))
    quad = gltf.quad() | {"targets": [{"POSITION": first}, {"POSITION": second}]}
    mesh = gltf.mesh(quad, weights=[0.5, 0.25])
    gltf.add("nodes", {"mesh": mesh})
    assert corners(gltf)[0][0] == [3, 0, 0]
    gltf.root["nodes"][0]["weights"] = [0, -1]
    assert corners(gltf)[0][0] == [-1, -5, 0]


def test_a_morph_target_of_another_length_is_refused():
    gltf = Gltf()
    quad = gltf.quad() | {"targets": [{"POSITION": gltf.accessor(QUAD[:3])}]}
    gltf.add("nodes", {"mesh": gltf.mesh(quad, weights=[1])})
    with pytest.raises(ValueError, match="has 3 rows; the mesh has 4"):
        corners(gltf)


def skinned(gltf: Gltf, joints: list, weights: list, kind: str = "f4") -> Gltf:
    """A quad on two joints: one moved by (5, 0, 0) under a parent moved by (0, 1, 0), one turned by a right angle."""
    attributes = {"JOINTS_0": gltf.accessor(joints, "u1")}
    attributes["WEIGHTS_0"] = gltf.accessor(weights, kind, normalized=kind != "f4")
    half = 0.5**0.5
    gltf.add("nodes", {"translation": [0, 1, 0], "children": [1]})
    gltf.add("nodes", {"translation": [5, 0, 0]})
    gltf.add("nodes", {"rotation": [0, 0, half, half]})
    back = np.eye(4)
    back[0, 3] = -5
    bind = gltf.accessor([back.T.ravel(), np.eye(4).ravel()])
    skin = gltf.add("skins", {"joints": [1, 2], "inverseBindMatrices": bind})
    node = gltf.add("nodes", {"mesh": gltf.mesh(gltf.quad(**attributes)), "skin": skin, "translation": [99, 0, 0]})
    gltf.root["scenes"] = [{"nodes": [0, 2, node]}]
    return gltf


def test_a_skin_stands_as_its_joints_do_and_not_as_its_node():
    found = corners(skinned(Gltf(), [[0, 0, 0, 0]] * 4, [[1, 0, 0, 0]] * 4))
    assert found[0] == [[-1, 0, 0], [1, 0, 0], [1, 2, 0]]
    turned = corners(skinned(Gltf(), [[1, 0, 0, 0]] * 4, [[1, 0, 0, 0]] * 4))
    assert np.array(turned[0]) == pytest.approx(np.array([[1, -1, 0], [1, 1, 0], [-1, 1, 0]]), abs=1e-6)


def test_weights_of_a_skin_are_mixed():
    found = corners(skinned(Gltf(), [[0, 1, 0, 0]] * 4, [[255, 255, 0, 0]] * 4, "u1"))
    assert np.array(found[0]) == pytest.approx(np.array([[0, -0.5, 0], [1, 0.5, 0], [0, 1.5, 0]]), abs=1e-6)


def test_a_joint_past_the_skins_is_refused():
    with pytest.raises(ValueError, match="has 2 joints; a vertex names joint 2"):
        corners(skinned(Gltf(), [[2, 0, 0, 0]] * 4, [[1, 0, 0, 0]] * 4))


@pytest.mark.parametrize("mode", [7, -1, "fan"])
def test_a_mode_that_does_not_exist_is_refused(mode):
    gltf = Gltf()
    with pytest.raises(ValueError, match="mode is"):
        corners(gltf.draw(gltf.quad() | {"mode": mode}))
