"""Turntable renders against geometry that is known in closed form."""

import io
import json
import math

import numpy as np
import pytest
import trimesh
from PIL import Image

from recon.cameras import turntable
from recon.meshes.load import Mesh, load_mesh, render_turntable


def glb(mesh: trimesh.Trimesh) -> bytes:
    return mesh.export(file_type="glb")


def colored_box() -> trimesh.Trimesh:
    """A cube whose +z face is red, +x green, -z blue, -x yellow, top white, bottom black."""
    box = trimesh.creation.box((1, 1, 1))
    box.unmerge_vertices()
    colors = {(0, 0, 1): (255, 0, 0), (1, 0, 0): (0, 255, 0), (0, 0, -1): (0, 0, 255), (-1, 0, 0): (255, 255, 0),
              (0, 1, 0): (255, 255, 255), (0, -1, 0): (0, 0, 0)}  # fmt: skip
    rgb = np.array([colors[tuple(np.rint(n).astype(int))] for n in box.face_normals], np.uint8)
    box.visual = trimesh.visual.ColorVisuals(box, vertex_colors=np.repeat(rgb, 3, 0))
    return box


def hue(pixel: np.ndarray) -> str:
    red, green, blue = (pixel[:3] > 60).tolist()
    return {(1, 0, 0): "red", (0, 1, 0): "green", (0, 0, 1): "blue", (1, 1, 0): "yellow"}.get((red, green, blue), "?")


def test_views_turn_counter_clockwise_from_the_front():
    views = render_turntable(load_mesh(glb(colored_box())), 0.0, 64, num_views=4)
    assert [hue(view[32, 32]) for view in views] == ["red", "green", "blue", "yellow"]


def test_start_azimuth_shifts_the_views():
    mesh = load_mesh(glb(colored_box()))
    views = render_turntable(mesh, 0.3, 48, num_views=16)
    shifted = render_turntable(mesh, 0.3, 48, num_views=16, start_azimuth=2 * math.pi * 3 / 16)
    assert np.abs(views[3].astype(int) - shifted[0]).max() <= 2


def test_a_sphere_covers_the_disc_that_perspective_gives():
    mesh = load_mesh(glb(trimesh.creation.icosphere(subdivisions=4)))
    view = render_turntable(mesh, 0.2, 128, num_views=1)[0]
    cameras = turntable(0.2, 128)
    focal, distance = float(cameras.Ks[0, 0, 0]), 3.0115
    radius = focal * math.tan(math.asin(1 / distance))
    assert (view[..., 3] > 127).sum() == pytest.approx(math.pi * radius**2, rel=0.01)


def test_elevation_shows_the_top():
    mesh = load_mesh(glb(colored_box()))
    low, high = render_turntable(mesh, 0.0, 64, 1)[0], render_turntable(mesh, math.pi / 4, 64, 1)[0]
    white = lambda view: ((view[..., :3] > 150).all(-1) & (view[..., 3] > 127)).sum()  # noqa: E731
    assert white(low) == 0
    assert white(high) > 300


def test_lights_do_not_turn_with_the_camera():
    box = trimesh.creation.box((1, 1, 1))
    views = render_turntable(load_mesh(glb(box)), 0.0, 64, num_views=4)
    again = render_turntable(load_mesh(glb(box)), 0.0, 64, num_views=8)
    faces = [int(view[32, 32, 0]) for view in views]
    assert len(set(faces)) > 1
    assert faces == [int(view[32, 32, 0]) for view in again[::2]]


def test_textures_and_both_sides_are_drawn():
    image = Image.new("RGB", (8, 8), (30, 200, 30))
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=image)
    quad = trimesh.Trimesh(
        [[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], [[0, 1, 2], [0, 2, 3]], process=False,
        visual=trimesh.visual.TextureVisuals(uv=[[0, 0], [1, 0], [1, 1], [0, 1]], material=material),
    )  # fmt: skip
    front, back = render_turntable(load_mesh(glb(quad)), 0.0, 64, num_views=2)
    for view in (front, back):
        assert hue(view[32, 32]) == "green"
        assert view[32, 32, 3] == 255


@pytest.mark.parametrize("given", ["material", "vertices"])
def test_colours_of_a_gltf_are_linear_and_those_of_a_ply_are_not(given):
    box = trimesh.creation.box((1, 1, 1))
    if given == "material":
        material = trimesh.visual.material.PBRMaterial(baseColorFactor=[55, 55, 55, 255])
        box.visual = trimesh.visual.TextureVisuals(uv=np.zeros((8, 2)), material=material)
    else:
        box.visual.vertex_colors = np.full((8, 4), [55, 55, 55, 255], np.uint8)
        assert load_mesh(box.export(file_type="ply"), "ply").colors == pytest.approx(55 / 255, abs=1e-3)
    assert load_mesh(glb(box)).colors == pytest.approx(0.5, abs=0.005)


def test_a_place_in_the_scene_moves_corners_and_normals():
    scene, turn = trimesh.Scene(), trimesh.transformations.rotation_matrix(0.6, [0, 0, 1])
    turn[:3, :3] *= np.array([3.0, 1, 1])
    turn[:3, 3] = [5, 0, 0]
    sphere = trimesh.creation.icosphere(subdivisions=3)
    scene.add_geometry(sphere, transform=turn)
    mesh = load_mesh(scene.export(file_type="glb"), in_place=True)
    assert mesh.corners.reshape(-1, 3).mean(0) == pytest.approx([5, 0, 0], abs=0.05)
    faces = np.cross(mesh.corners[:, 1] - mesh.corners[:, 0], mesh.corners[:, 2] - mesh.corners[:, 0])
    faces /= np.linalg.norm(faces, axis=-1, keepdims=True)
    assert (mesh.normals.mean(1) * faces).sum(-1).min() > 0.95


def test_background_is_white_and_uncovered():
    view = render_turntable(load_mesh(glb(colored_box())), 0.4, 64, 1)[0]
    assert view[0, 0].tolist() == [255, 255, 255, 0]


def test_position_and_scale_do_not_matter():
    box = colored_box()
    near = render_turntable(load_mesh(glb(box)), 0.3, 64, 1)
    box.apply_scale(37.0)
    box.apply_translation([100, -20, 5])
    assert np.abs(render_turntable(load_mesh(glb(box)), 0.3, 64, 1).astype(int) - near).max() <= 1


def test_obj_files_load(tmp_path):
    path = tmp_path / "box.obj"
    path.write_text(trimesh.creation.box((1, 2, 1)).export(file_type="obj"))
    assert isinstance(load_mesh(path), Mesh)
    assert (render_turntable(load_mesh(path), 0.0, 64, 1)[0][..., 3] > 127).mean() > 0.1


@pytest.mark.parametrize("address", ["../buffer.bin", "{folder}/buffer.bin", "http://127.0.0.1:9/buffer.bin"])
def test_files_outside_the_folder_of_a_gltf_are_not_read(tmp_path, address):
    (tmp_path / "asset").mkdir()
    for name, data in trimesh.exchange.gltf.export_gltf(
        trimesh.Scene(trimesh.creation.box()), merge_buffers=True
    ).items():
        (tmp_path / "asset" / name).write_bytes(data)
    path = tmp_path / "asset" / "model.gltf"
    assert isinstance(load_mesh(path), Mesh)
    document = json.loads(path.read_text())
    (tmp_path / "asset" / document["buffers"][0]["uri"]).rename(tmp_path / "buffer.bin")
    document["buffers"][0]["uri"] = address.format(folder=tmp_path)
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match="cannot read this gltf"):
        load_mesh(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"glTF broken", "cannot read this glb: it has 11 bytes"), (b"", "cannot read this glb: its JSON is broken")],
)
def test_broken_files_say_so(data, message):
    with pytest.raises(ValueError, match=message):
        load_mesh(data)


def test_limits_are_named(monkeypatch):
    monkeypatch.setattr("recon.meshes.load.MAX_FACES", 4)
    with pytest.raises(ValueError, match="over 4 faces"):
        load_mesh(glb(trimesh.creation.box()))


@pytest.mark.parametrize(("suffix", "command"), [("fbx", "FBX2glTF"), ("usdz", "usd_import"), ("USDC", "usd_import")])
def test_formats_of_other_programs_are_refused_with_the_converters_command(tmp_path, suffix, command):
    (tmp_path / f"a.{suffix}").write_bytes(b"anything")
    with pytest.raises(
        ValueError, match=f"file type '{suffix.lower()}' is not supported.*convert it with `.*{command}"
    ):
        load_mesh(tmp_path / f"a.{suffix}")


@pytest.mark.parametrize("encoding", ["ascii", "binary"])
def test_a_ply_has_its_own_normals_or_flat_ones(encoding):
    ball = trimesh.creation.icosphere(subdivisions=1)
    smooth = load_mesh(ball.export(file_type="ply", vertex_normal=True, encoding=encoding), "ply")
    assert np.abs(smooth.normals - smooth.corners).max() < 0.02
    flat = load_mesh(ball.export(file_type="ply", vertex_normal=False, encoding=encoding), "ply")
    assert np.ptp(flat.normals, axis=1).max() < 1e-6


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"ply\nformat ascii 1.0\ncomment TextureFile a.png\nend_header\n", "textures of a PLY are not read"),
        (b"ply\nformat ascii 1.0\nelement face 3000000\nend_header\n", "3000000 elements of kind face"),
        (b"ply\nformat ascii 1.0\nend_header\n", "cannot read this ply"),
        (b"", "cannot read this ply"),
    ],
)
def test_plys_that_are_not_read_say_why(data, message):
    with pytest.raises(ValueError, match=message):
        load_mesh(data, "ply")


def test_unknown_types_and_points_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"not supported\. Available: glb"):
        load_mesh(b"", "fbx")
    cloud = trimesh.Scene(trimesh.PointCloud(np.random.default_rng(0).normal(size=(10, 3))))
    with pytest.raises(ValueError):
        load_mesh(io.BytesIO(cloud.export(file_type="glb")).getvalue())
    with pytest.raises(ValueError, match=r"\[8, 4096\]"):
        render_turntable(load_mesh(glb(trimesh.creation.box())), 0.0, 4)
