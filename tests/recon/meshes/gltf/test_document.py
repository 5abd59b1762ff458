"""Containers, files beside a model, and extensions that are not read."""

import base64
import json
import struct

import numpy as np
import pytest

from recon.meshes.load import load_mesh, render_turntable
from tests.recon.meshes.gltf_writer import RGBY, Gltf, front, letters, png


def painted() -> Gltf:
    gltf = Gltf()
    return gltf.draw(gltf.quad(gltf.material(texture={"index": gltf.texture(RGBY)})))


def apart(buffer: str = "quad data.bin", image: str = "paint.png") -> tuple[dict, bytes]:
    """`painted` as the JSON of a .gltf, and its buffer; `buffer` and `image` are their addresses."""
    gltf = painted()
    root = dict(gltf.root) | {"buffers": [{"byteLength": len(gltf.bytes), "uri": buffer}], "images": [{"uri": image}]}
    return root, bytes(gltf.bytes)


def write(folder, root: dict, **files: bytes):
    for name, data in files.items():
        (folder / name.replace("__", "/")).parent.mkdir(parents=True, exist_ok=True)
        (folder / name.replace("__", "/")).write_bytes(data)
    (folder / "model.gltf").write_text(json.dumps(root))
    return folder / "model.gltf"


def seen(path) -> str:
    return letters(render_turntable(load_mesh(path), 0.0, 64, 1)[0])


def test_files_beside_a_gltf_are_found_by_their_percent_encoded_names(tmp_path):
    root, data = apart("quad%20data.bin", "textures/f%C3%A4rbe%23.png")
    path = write(tmp_path, root, **{"quad data.bin": data, "textures__färbe#.png": png(RGBY)})
    assert seen(path) == "RGBY"


@pytest.mark.parametrize("kind", ["application/octet-stream", "application/gltf-buffer", ""])
def test_data_addresses_are_read(kind):
    def embedded(data: bytes) -> str:
        return f"data:{kind};base64,{base64.b64encode(data).decode()}"

    root, data = apart()
    root["buffers"][0]["uri"], root["images"][0]["uri"] = embedded(data), embedded(png(RGBY))
    assert letters(front(json.dumps(root).encode(), "gltf")) == "RGBY"
    root["buffers"][0]["uri"] = "data:;base64,abc"
    with pytest.raises(ValueError, match="is not base64"):
        front(json.dumps(root).encode(), "gltf")


@pytest.mark.parametrize(
    "address",
    ["../paint.png", "%2e%2e/paint.png", "/etc/hostname", "http://127.0.0.1:9/p.png", "C:/p.png",
     "file:///etc/hostname", "..%5Cpaint.png", "a/../../paint.png", "", "x%00.png"],
)  # fmt: skip
def test_nothing_outside_of_the_folder_is_read(tmp_path, address):
    (tmp_path / "paint.png").write_bytes(png(RGBY))
    folder = tmp_path / "asset"
    folder.mkdir()
    root, data = apart("b.bin", address)
    with pytest.raises(ValueError, match="outside of the model's folder"):
        seen(write(folder, root, **{"b.bin": data}))


def test_links_do_not_lead_out_of_the_folder(tmp_path):
    (tmp_path / "paint.png").write_bytes(png(RGBY))
    folder = tmp_path / "asset"
    folder.mkdir()
    (folder / "link.png").symlink_to(tmp_path / "paint.png")
    root, data = apart("b.bin", "link.png")
    with pytest.raises(ValueError, match="outside of the model's folder"):
        seen(write(folder, root, **{"b.bin": data}))


def test_missing_files_and_files_without_a_folder_are_named(tmp_path):
    root, data = apart("b.bin")
    with pytest.raises(ValueError, match=r"needs 'paint.png', which is not beside it"):
        seen(write(tmp_path, root, **{"b.bin": data}))
    with pytest.raises(ValueError, match=r"needs 'b.bin' beside it, and came alone"):
        front(json.dumps(root).encode(), "gltf")


def test_files_beside_count_toward_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr("recon.meshes.load.MAX_FILE_BYTES", 3000)
    root, data = apart("b.bin")
    root["buffers"][0]["byteLength"] = 2950
    path = write(
        tmp_path, root, **{"b.bin": data + bytes(2950 - len(data)), "paint.png": png(np.tile(RGBY, (9, 9, 1)))}
    )
    with pytest.raises(ValueError, match="larger than the limit for meshes"):
        seen(path)


def broken(data: bytes, at: int, kind: str, value: int) -> bytes:
    return data[:at] + struct.pack(kind, value) + data[at + struct.calcsize(kind) :]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-100], "the file is cut off"),
        (lambda data: data[:15], "it has 15 bytes: the file is cut off"),
        (lambda data: broken(data, 4, "<I", 1), "it is GLB 1; only 2 is read"),
        (lambda data: broken(data, 12, "<I", 10**6), "the file is cut off"),
        (lambda data: broken(data, 16, "<I", 7), "first chunk is not JSON"),
        (lambda data: data.replace(b'"asset"', b"'asset'"), "its JSON is broken"),
        (lambda data: data.replace(b'"version": "2.0"', b'"version": "1.0"'), "it is glTF 1.0; only 2.0 is read"),
        (lambda data: data.replace(b'"byteLength": ', b'"byteLength":9'), "the file is cut off|ends at byte"),
    ],
)
def test_broken_containers_say_so(damage, message):
    with pytest.raises(ValueError, match=message):
        front(damage(painted().glb()))


@pytest.mark.parametrize("text", [b"[1]", b"[" * 200_000, b"", b"{}", b'{"asset": 3}', b'{"meshes": 7}', b"\xff\xfe"])
def test_json_that_is_no_gltf_is_refused(text):
    with pytest.raises(ValueError, match="cannot read this gltf"):
        load_mesh(text, "gltf")


def test_minor_versions_are_read_while_they_need_no_more_than_2_0():
    gltf = painted()
    gltf.root["asset"] = {"version": "2.7"}
    assert letters(front(gltf.glb())) == "RGBY"
    gltf.root["asset"] = {"version": "2.7", "minVersion": "2.1"}
    with pytest.raises(ValueError, match=r"it is glTF 2.1"):
        front(gltf.glb())


def test_a_required_extension_that_is_not_read_is_named():
    gltf = painted()
    gltf.root |= {"extensionsUsed": ["VENDOR_magic"], "extensionsRequired": ["KHR_materials_unlit", "VENDOR_magic"]}
    with pytest.raises(ValueError, match=r"needs the extension VENDOR_magic, which is not read; export it again"):
        front(gltf.glb())


@pytest.mark.parametrize(
    "where",
    ["accessors", "bufferViews", "buffers", "images", "materials", "meshes", "nodes", "samplers", "scenes", "textures"],
)
def test_an_unknown_extension_of_what_is_drawn_is_named_and_a_mere_mention_is_not(where):
    gltf = painted()
    gltf.root["extensionsUsed"] = ["VENDOR_magic"]
    assert letters(front(gltf.glb())) == "RGBY"
    if where == "buffers":
        gltf.root["buffers"] = []
        root = json.loads(gltf.glb()[20 : 20 + struct.unpack_from("<I", gltf.glb(), 12)[0]])
        uri = "data:;base64," + base64.b64encode(bytes(gltf.bytes)).decode()
        root["buffers"] = [{"byteLength": len(gltf.bytes), "uri": uri, "extensions": {"VENDOR_magic": {}}}]
        data, kind = json.dumps(root).encode(), "gltf"
    else:
        extensions = gltf.root[where][0].setdefault("extensions", {})
        extensions["VENDOR_magic"] = {}
        data, kind = gltf.glb(), "glb"
    with pytest.raises(ValueError, match=rf"{where}\[0\] uses the extension VENDOR_magic, .* may change the picture"):
        front(data, kind)


def test_unknown_extensions_of_primitives_and_places_of_textures_are_named():
    gltf = painted()
    gltf.root["meshes"][0]["primitives"][0]["extensions"] = {"VENDOR_magic": {}}
    with pytest.raises(ValueError, match=r"primitives\[0\] uses the extension VENDOR_magic"):
        front(gltf.glb())
    gltf = painted()
    gltf.root["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"]["extensions"] = {"VENDOR_magic": {}}
    with pytest.raises(ValueError, match="baseColorTexture uses the extension VENDOR_magic"):
        front(gltf.glb())


def test_extensions_that_our_pictures_do_not_show_are_passed_over():
    gltf = painted()
    gltf.root["extensionsRequired"] = ["KHR_materials_ior"]
    gltf.root["materials"][0]["extensions"] |= {"KHR_materials_ior": {"ior": 2}, "KHR_materials_clearcoat": {}}
    gltf.root["nodes"][0]["extensions"] = {"KHR_lights_punctual": {"light": 0}}
    assert letters(front(gltf.glb())) == "RGBY"


@pytest.mark.parametrize("name", ["KHR_texture_basisu", "MSFT_texture_dds", "EXT_texture_avif"])
def test_textures_in_other_formats_have_a_plain_one_or_are_refused_by_name(name):
    gltf = painted()
    gltf.root["textures"][0]["extensions"] = {name: {"source": 9}}
    assert letters(front(gltf.glb())) == "RGBY"
    gltf.root["textures"][0].pop("source")
    with pytest.raises(ValueError, match=f"is a texture of {name}, which is not read"):
        front(gltf.glb())
    gltf.root["extensionsRequired"] = [name]
    with pytest.raises(ValueError, match=f"needs the extension {name}"):
        front(gltf.glb())
