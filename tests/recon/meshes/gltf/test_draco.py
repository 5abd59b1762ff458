"""Meshes that Draco packed, by its own encoder, beside plain ones."""

import DracoPy
import numpy as np
import pytest

from tests.recon.meshes.gltf_writer import CORNERS, QUAD, RGBY, TWO, Gltf, front, letters


def packed(gltf: Gltf, in_order: bool = True) -> dict:
    """The quad with its places in the texture as a primitive whose accessors hold nothing."""
    data = DracoPy.encode(
        np.array(QUAD, np.float32), np.array(TWO, np.uint32).reshape(-1, 3), quantization_bits=16,
        preserve_order=in_order, tex_coord=np.array(CORNERS, float),
    )  # fmt: skip
    numbers = {a["attribute_type"]: a["unique_id"] for a in DracoPy.decode(data).attributes}
    extension = {"bufferView": gltf.view(data), "attributes": {"POSITION": numbers[0], "TEXCOORD_0": numbers[3]}}
    shape = {"componentType": 5126, "count": 4}
    attributes = {"POSITION": gltf.add("accessors", shape | {"type": "VEC3"})}
    attributes["TEXCOORD_0"] = gltf.add("accessors", shape | {"type": "VEC2"})
    indices = gltf.add("accessors", {"componentType": 5125, "count": 6, "type": "SCALAR"})
    material = gltf.material(texture={"index": gltf.texture(RGBY)})
    return {
        "attributes": attributes,
        "indices": indices,
        "material": material,
        "extensions": {"KHR_draco_mesh_compression": extension},
    }


@pytest.mark.parametrize("in_order", [True, False], ids=["sequential", "edgebreaker"])
def test_packed_meshes_are_unpacked(in_order):
    gltf = Gltf(extensionsRequired=["KHR_draco_mesh_compression"])
    assert letters(front(gltf.draw(packed(gltf, in_order)).glb())) == "RGBY"


def test_a_packed_part_stands_beside_a_plain_one():
    gltf = Gltf()
    behind = gltf.quad(gltf.material([1, 1, 1, 1]))
    gltf.draw(behind, translation=[0, 0, -0.1])
    data = gltf.draw(packed(gltf)).glb()
    assert letters(front(data)) == "RGBY"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda gltf, e: gltf.root["accessors"][2].update(count=9), "has 2 faces and 4 vertices; the accessors say 3"),
        (lambda gltf, e: gltf.root["accessors"][0].update(count=3), "has 2 faces and 4 vertices"),
        (lambda gltf, e: gltf.root["accessors"][0].update(count=5), "is not as large as the accessors"),
        (lambda gltf, e: e["attributes"].update(TEXCOORD_0=9), "TEXCOORD_0 is missing from the packed mesh"),
        (lambda gltf, e: e.update(bufferView=gltf.view(b"DRACO" + bytes(60))), "it is no Draco mesh"),
        (lambda gltf, e: e.update(bufferView=gltf.view(b"DRACO\2\2\1\0\0\0\2\4" + b"\xff" * 60)), "can be unpacked"),
        (lambda gltf, e: e.update(bufferView=gltf.view(b"DRACO\2\2")), "can be unpacked"),
        (lambda gltf, e: e.update(bufferView=gltf.view(b"DRACO\2\2\1\0\0\0" + b"\xff" * 4 + b"\x0f\4")), "faces"),
    ],
)
def test_packed_meshes_that_are_broken_name_the_extension(change, message):
    gltf = Gltf()
    primitive = packed(gltf)
    change(gltf, primitive["extensions"]["KHR_draco_mesh_compression"])
    with pytest.raises(ValueError, match=f"(?s){message}") as raised:
        front(gltf.draw(primitive).glb())
    assert "KHR_draco_mesh_compression" in str(raised.value)
    assert "gltf-transform cp" in str(raised.value)
