"""Buffer views that meshoptimizer packed, compared with the same numbers unpacked."""

from __future__ import annotations

from typing import Any

import meshopt
import numpy as np
import pytest

from recon.meshes.gltf import meshopt as reader
from recon.meshes.load import load_mesh
from tests.recon.meshes.gltf_writer import CODES, CORNERS, QUAD, RGBY, TWO, TYPES, Gltf, front, letters

NAMES = ["EXT_meshopt_compression", "KHR_meshopt_compression"]


def packed(gltf: Gltf, rows: np.ndarray, data: bytes, mode: str, name: str, kind: str, width: int, **more) -> int:
    """An accessor over a view whose rows lie packed as `data`, with a placeholder for a buffer."""
    rows = np.ascontiguousarray(rows)
    stride = rows.nbytes // len(rows)
    gltf.view(data)
    views: list[dict[str, Any]] = gltf.root["bufferViews"]  # pyright: ignore[reportAssignmentType]
    place = views[-1]
    extension = {"count": len(rows), "byteStride": stride, "mode": mode} | place | more.pop("extension", {})
    view = {"buffer": 1, "byteLength": rows.nbytes, "extensions": {name: extension}}
    view |= {"byteStride": stride} if mode == "ATTRIBUTES" else {}
    gltf.root["buffers"] = [{"byteLength": 1 << 16, "extensions": {name: {"fallback": True}}}]
    shape = {"componentType": CODES[kind], "count": len(rows), "type": TYPES[width]}
    return gltf.add("accessors", {"bufferView": gltf.add("bufferViews", view)} | shape | more)


def quad(name: str = NAMES[0], order: str = "TRIANGLES", **extension) -> Gltf:
    """A painted quad of quantised positions, places and indices, all packed."""
    gltf = Gltf(extensionsRequired=[name, "KHR_mesh_quantization"])
    points = np.array([[*row, 0] for row in QUAD], "<i2") * 16384
    places = np.array(CORNERS, "<u2") * 65535
    indices = np.array(TWO, "<u2")
    attributes = {
        "POSITION": packed(gltf, points, meshopt.encode_gltf_buffer(points, "ATTRIBUTES"), "ATTRIBUTES", name, "i2", 3,
                           normalized=True, extension=extension),
        "TEXCOORD_0": packed(gltf, places, meshopt.encode_gltf_buffer(places, "ATTRIBUTES"), "ATTRIBUTES", name, "u2",
                             2, normalized=True),
    }  # fmt: skip
    encode = {"TRIANGLES": meshopt.encode_index_buffer, "INDICES": meshopt.encode_index_sequence}[order]
    corners = packed(gltf, indices, encode(indices), order, name, "u2", 1)
    material = gltf.material(texture={"index": gltf.texture(RGBY)})
    return gltf.draw({"attributes": attributes, "indices": corners, "material": material})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", ["TRIANGLES", "INDICES"])
def test_packed_views_hold_what_the_plain_ones_do(name, mode):
    assert letters(front(quad(name, mode).glb())) == "RGBY"


@pytest.mark.parametrize("version", [0, 1])
def test_filters_are_undone(version):
    """Positions as exponentials, normals as octahedra, colours as YCoCg, each to what its bits allow."""
    gltf, name = Gltf(), NAMES[1]
    points, normals = np.array(QUAD, "<f4") * 0.75, np.tile(np.array([0.6, 0, 0.8, 0], "<f4"), (4, 1))
    colors = np.tile(np.array([1, 0.5, 0.25, 1], "<f4"), (4, 1))

    def filtered(rows: np.ndarray, restored: str, kind: str, width: int, **more) -> int:
        data = meshopt.encode_gltf_buffer(rows, "ATTRIBUTES", version)
        return packed(gltf, rows, data, "ATTRIBUTES", name, kind, width, extension={"filter": restored}, **more)

    attributes = {
        "POSITION": filtered(meshopt.encode_filter_exp(points, 16), "EXPONENTIAL", "f4", 3),
        "NORMAL": filtered(meshopt.encode_filter_oct(normals, 8, 12), "OCTAHEDRAL", "i2", 3, normalized=True),
        "COLOR_0": filtered(meshopt.encode_filter_color(colors, 4, 8), "COLOR", "u1", 4, normalized=True),
    }
    mesh = load_mesh(gltf.draw({"attributes": attributes, "indices": gltf.accessor(TWO, "u2")}).glb(), in_place=True)
    assert np.abs(mesh.corners[0] - points[:3]).max() < 1e-4
    assert np.abs(mesh.normals - [0.6, 0, 0.8]).max() < 2e-3
    linear = np.array([1, 0.5, 0.25])
    assert np.abs(mesh.colors - (1.055 * linear ** (1 / 2.4) - 0.055)).max() < 0.01


def test_a_plain_copy_beside_the_packed_one_is_not_needed():
    gltf = quad()
    gltf.root["extensionsRequired"], gltf.root["extensionsUsed"] = [], [NAMES[0]]
    assert letters(front(gltf.glb())) == "RGBY"


@pytest.mark.parametrize(
    ("extension", "message"),
    [
        ({"mode": "POINTS"}, "mode is 'POINTS'. Available: ATTRIBUTES"),
        ({"filter": "WAVELET"}, "filter is 'WAVELET'. Available: NONE"),
        ({"count": 5}, "packs 5 rows of 8 bytes; its view has 32 bytes"),
        ({"byteLength": 3}, "EXT_meshopt_compression holds no rows that can be unpacked .*gltf-transform cp"),
        ({"byteOffset": 1 << 20}, "ends at byte"),
    ],
)
def test_packed_views_that_are_broken_name_the_extension(extension, message):
    with pytest.raises(ValueError, match=message):
        front(quad(**extension).glb())


def test_views_that_unpack_to_much_are_refused_before_they_are_unpacked(monkeypatch):
    monkeypatch.setattr(reader, "MAX_BYTES", 40)
    with pytest.raises(ValueError, match="need over 40 bytes"):
        front(quad().glb())
