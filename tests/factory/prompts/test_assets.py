"""Meshes with the files beside them, from a local folder and from s3://."""

import json
from pathlib import Path

import pytest

from factory.evaluation.viewable_asset import Solid, read_shape
from factory.prompts.assets import beside, read_asset, read_mesh
from factory.storage.store import open_store
from tests.recon.meshes.gltf_writer import RGBY, Gltf, png

OBJ = "mtllib a.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nusemtl red\nf 1 2 3\n"


def files() -> dict[str, bytes]:
    """A .gltf with a buffer and a texture, and an .obj with materials, in a folder of a table's folder."""
    gltf = Gltf()
    gltf.draw(gltf.quad(gltf.material(texture={"index": gltf.texture(RGBY)})))
    root = gltf.root | {"buffers": [{"byteLength": len(gltf.bytes), "uri": "my%20data.bin"}]}
    root["images"] = [{"uri": "textures/paint.png"}]
    return {
        "chairs/one.gltf": json.dumps(root).encode(),
        "chairs/my data.bin": bytes(gltf.bytes),
        "chairs/textures/paint.png": png(RGBY),
        "chairs/two.obj": OBJ.encode(),
        "chairs/a.mtl": b"newmtl red\nKd 1 0 0\n",
        "chairs/leaves.obj": OBJ.replace("a.mtl", "../a.mtl").encode(),
        "chairs/lacks.obj": OBJ.replace("a.mtl", "b.mtl").encode(),
        "a.mtl": b"newmtl red\nKd 1 0 0\n",
    }


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        request.getfixturevalue("s3")
    root = str(tmp_path / "assets") if request.param == "local" else f"s3://test/{tmp_path.name}"
    store = open_store(root)
    for name, data in files().items():
        store.put(name, data)
    return root


def test_files_beside_a_mesh_are_read_from_its_own_folder_alone(root: str) -> None:
    mesh = read_mesh("chairs/one.gltf", root)
    assert mesh.texels.reshape(2, 2, 4)[..., :3].tolist() == RGBY.tolist()
    assert read_mesh("chairs/two.obj", root).colors[0, 0].tolist() == [1, 0, 0]
    with pytest.raises(ValueError, match=r"'../a.mtl' lies outside of the model's folder"):
        read_mesh("chairs/leaves.obj", root)
    with pytest.raises(ValueError, match=r"no file 'chairs/b.mtl' in the assets' folder"):
        read_mesh("chairs/lacks.obj", root)


def test_they_are_found_for_what_is_judged_too(root: str) -> None:
    def read(name: str) -> bytes:
        return read_asset(name, root)

    shape = read_shape(read("chairs/two.obj"), "chairs/two.obj", opener=beside("chairs/two.obj", root, read))
    assert isinstance(shape, Solid)
    assert shape.mesh.colors[0, 0].tolist() == [1, 0, 0]


def test_links_out_of_the_folder_of_a_mesh_are_not_followed(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "assets"))
    for name, data in files().items():
        store.put(name, data)
    (tmp_path / "secret.png").write_bytes(png(RGBY))
    paint = tmp_path / "assets/chairs/textures/paint.png"
    paint.unlink()
    paint.symlink_to(tmp_path / "secret.png")
    with pytest.raises(ValueError, match=r"'textures/paint\.png' is a link out of the model's folder"):
        read_mesh("chairs/one.gltf", store.root)
    paint.unlink()
    (tmp_path / "assets/chairs/other.png").write_bytes(png(RGBY))
    paint.symlink_to("../other.png")  # within the folder
    assert read_mesh("chairs/one.gltf", store.root).texels.shape[0] == 4
