"""Numbers of every type, place and packing come out as what they were written as."""

import struct

import numpy as np
import pytest

from recon.meshes.load import load_mesh
from tests.recon.meshes.gltf_writer import CORNERS, QUAD, TWO, Gltf

UVS = np.array([[[x, 1 - v] for x, v in (CORNERS[k] for k in face)] for face in (TWO[:3], TWO[3:])])
PLACES = np.array(QUAD, float)[np.reshape(TWO, (2, 3))]


def textured(gltf: Gltf, **attributes: int) -> bytes:
    texture = gltf.texture(np.zeros((2, 2, 3), np.uint8))
    return gltf.draw(gltf.quad(gltf.material(texture={"index": texture}), **attributes)).glb()


def read(data: bytes):
    return load_mesh(data, in_place=True)


@pytest.mark.parametrize(("kind", "one"), [("u1", 255), ("u2", 65535), ("i1", 127), ("i2", 32767)])
@pytest.mark.parametrize("stride", [None, 8])
def test_normalised_integers_are_parts_of_one(kind, one, stride):
    gltf = Gltf(extensionsUsed=["KHR_mesh_quantization"], extensionsRequired=["KHR_mesh_quantization"])
    uvs = gltf.accessor(np.array(CORNERS) * one, kind, stride, normalized=True)
    assert read(textured(gltf, TEXCOORD_0=uvs)).uvs == pytest.approx(UVS)


def test_the_least_signed_integer_is_minus_one():
    gltf = Gltf()
    low = gltf.accessor([[-128, 0, 0], [127, 0, 0], [0, 64, 0], [0, 0, 0]], "i1", 4, normalized=True)
    corners = read(gltf.draw(gltf.quad(POSITION=low)).glb()).corners
    assert corners[0] == pytest.approx(np.array([[-1, 0, 0], [1, 0, 0], [0, 64 / 127, 0]]))


@pytest.mark.parametrize("kind", ["i1", "u1", "i2", "u2"])
def test_integers_that_are_not_normalised_are_taken_as_they_are(kind):
    gltf = Gltf(extensionsRequired=["KHR_mesh_quantization"])
    places = gltf.accessor(np.array([[0, 0, 0], [100, 0, 0], [100, 100, 0], [0, 100, 7]]), kind, 8)
    corners = read(gltf.draw(gltf.quad(POSITION=places)).glb()).corners
    assert corners[1].tolist() == [[0, 0, 0], [100, 100, 0], [0, 100, 7]]


def test_interleaved_attributes_share_a_view():
    gltf = Gltf()
    rows = b"".join(struct.pack("<3f2H", *QUAD[k], *(65535 * c for c in CORNERS[k])) for k in range(4))
    view = gltf.view(rows, byteStride=16)
    shape = {"bufferView": view, "count": 4}
    places = gltf.add("accessors", shape | {"componentType": 5126, "type": "VEC3"})
    uvs = gltf.add("accessors", shape | {"componentType": 5123, "type": "VEC2", "byteOffset": 12, "normalized": True})
    mesh = read(textured(gltf, POSITION=places, TEXCOORD_0=uvs))
    assert mesh.corners.tolist() == PLACES.tolist()
    assert mesh.uvs == pytest.approx(UVS)


@pytest.mark.parametrize("kind", ["u1", "u2", "u4"])
def test_indices_of_all_sizes(kind):
    gltf = Gltf()
    quad = gltf.quad() | {"indices": gltf.accessor(TWO, kind)}
    assert read(gltf.draw(quad).glb()).corners.tolist() == PLACES.tolist()


@pytest.mark.parametrize("kind", ["u1", "u2", "u4"])
def test_sparse_elements_replace_those_of_the_view(kind):
    gltf = Gltf()
    wrong = [[9, 9, 9], QUAD[1], [9, 9, 9], QUAD[3]]
    places = gltf.accessor(wrong)
    gltf.root["accessors"][places]["sparse"] = sparse(gltf, [0, 2], [QUAD[0], QUAD[2]], kind)
    assert read(gltf.draw(gltf.quad(POSITION=places)).glb()).corners.tolist() == PLACES.tolist()


def test_without_a_view_elements_are_zero_but_for_the_sparse_ones():
    gltf = Gltf()
    bare = {"componentType": 5126, "type": "VEC3", "count": 4}
    some = gltf.add("accessors", bare | {"sparse": sparse(gltf, [1, 3], [[2, 0, 0], [0, 2, 0]])})
    mesh = read(gltf.draw(gltf.quad(POSITION=some)).glb())
    assert mesh.corners.tolist() == [[[0, 0, 0], [2, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 0], [0, 2, 0]]]


def test_an_accessor_of_zeros_has_no_extent():
    gltf = Gltf()
    zeros = gltf.add("accessors", {"componentType": 5126, "type": "VEC3", "count": 4})
    with pytest.raises(ValueError, match="has no extent"):
        load_mesh(gltf.draw(gltf.quad(POSITION=zeros)).glb())


def test_sparse_values_are_normalised_like_the_others():
    gltf = Gltf()
    uvs = gltf.accessor(np.zeros((4, 2)), "u2", normalized=True)
    values = gltf.view((np.array(CORNERS) * 65535).astype("<u2").tobytes())
    indices = {"bufferView": gltf.view(bytes(range(4))), "componentType": 5121}
    gltf.root["accessors"][uvs]["sparse"] = {"count": 4, "indices": indices, "values": {"bufferView": values}}
    assert read(textured(gltf, TEXCOORD_0=uvs)).uvs == pytest.approx(UVS)


def sparse(gltf: Gltf, places: list[int], values: list[list[float]], kind: str = "u2") -> dict:
    codes = {"u1": 5121, "u2": 5123, "u4": 5125}
    indices = gltf.view(np.array(places, "<" + kind).tobytes())
    held = gltf.view(np.array(values, "<f4").tobytes())
    return {
        "count": len(places),
        "indices": {"bufferView": indices, "componentType": codes[kind]},
        "values": {"bufferView": held},
    }


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["POSITION", "TEXCOORD_0", "NORMAL", "COLOR_0"])
def test_numbers_that_are_none_are_refused(name, number):
    gltf = Gltf()
    rows = np.ones((4, 2 if name == "TEXCOORD_0" else 3))
    rows[2, 1] = number
    with pytest.raises(ValueError, match=f"{name} of .* holds NaN or infinite numbers"):
        read(textured(gltf, **{name: gltf.accessor(rows)}))


@pytest.mark.parametrize(
    ("collection", "change", "message"),
    [
        ("accessors", {"count": 5}, r"accessors\[0\] reaches to byte 60 of bufferViews\[0\], which has 48"),
        ("accessors", {"byteOffset": 4}, "reaches to byte 52"),
        ("accessors", {"count": 6_000_001}, "6000001 elements; the limit is 6000000"),
        ("accessors", {"count": -1}, r"accessors\[0\].count is -1; it must be a whole number"),
        ("accessors", {"count": "many"}, r"accessors\[0\].count is 'many'"),
        ("accessors", {"type": "VEC7"}, "type is 'VEC7'"),
        ("accessors", {"type": "VEC2"}, r"has 2 numbers a row; POSITION of .* needs 3"),
        ("accessors", {"componentType": 5130}, "componentType is 5130"),
        ("accessors", {"bufferView": 77}, r"bufferViews\[77\] is asked for"),
        ("accessors", {"normalized": "yes"}, "normalized is 'yes'"),
        ("bufferViews", {"byteStride": 4}, "byteStride is 4; the rows of .* have 12 bytes"),
        ("bufferViews", {"byteLength": 10**9}, "ends at byte 1000000000 of a buffer"),
        ("bufferViews", {"buffer": 4}, r"buffers\[4\] is asked for"),
    ],
)
def test_what_reaches_past_its_place_is_refused(collection, change, message):
    gltf = Gltf()
    quad = gltf.quad()
    gltf.root[collection][0] |= change
    with pytest.raises(ValueError, match=message):
        read(gltf.draw(quad).glb())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 9}, "sparse.count is 9; the accessor has 4 elements"),
        ({"places": [0, 7]}, "names element 7 of an accessor that has 4"),
        ({"code": 5126}, "must be an unsigned integer's"),
    ],
)
def test_sparse_elements_stay_inside(change, message):
    gltf = Gltf()
    places = gltf.accessor(QUAD)
    block = sparse(gltf, change.get("places", [0, 2]), [QUAD[0], QUAD[2]])
    block["count"] = change.get("count", 2)
    block["indices"]["componentType"] = change.get("code", 5123)
    gltf.root["accessors"][places]["sparse"] = block
    with pytest.raises(ValueError, match=message):
        read(gltf.draw(gltf.quad(POSITION=places)).glb())


def test_an_index_past_the_vertices_is_refused():
    gltf = Gltf()
    quad = gltf.quad() | {"indices": gltf.accessor([0, 1, 4], "u2")}
    with pytest.raises(ValueError, match="names vertex 4; it has 4"):
        read(gltf.draw(quad).glb())


def test_indices_that_are_floats_are_refused():
    gltf = Gltf()
    quad = gltf.quad() | {"indices": gltf.accessor([0, 1, 2])}
    with pytest.raises(ValueError, match="must be unsigned integers"):
        read(gltf.draw(quad).glb())


def test_attributes_of_two_lengths_are_refused():
    gltf = Gltf()
    with pytest.raises(ValueError, match="has 4 POSITION and 3 TEXCOORD_0"):
        read(textured(gltf, TEXCOORD_0=gltf.accessor(CORNERS[:3])))


def test_many_sparse_accessors_do_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr("recon.meshes.gltf.accessors.MAX_SPARSE_BYTES", 100)
    gltf = Gltf()
    quads = []
    for _ in range(3):
        places = gltf.accessor(QUAD)
        gltf.root["accessors"][places]["sparse"] = sparse(gltf, [0], [QUAD[0]])
        quads.append(gltf.quad(POSITION=places))
    with pytest.raises(ValueError, match="sparse accessors need over 100 bytes"):
        read(gltf.draw(*quads).glb())
