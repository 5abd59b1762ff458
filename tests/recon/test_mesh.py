import io

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial import cKDTree

from recon.config import MeshConfig
from recon.gaussians import Gaussians
from recon.mesh import glb_bytes, mesh_of
from recon.silhouettes import least_coverage

RADIUS, DEVIATION = 0.7, 0.04


def gaussians_at(points: np.ndarray, colours: np.ndarray) -> Gaussians:
    """Isotropic, opaque Gaussians of sRGB colours [N,3] at points [N,3]."""
    count = len(points)
    return Gaussians(
        means=torch.tensor(points, dtype=torch.float32),
        quats=torch.tensor([1.0, 0, 0, 0]).repeat(count, 1),
        scales=torch.full((count, 3), DEVIATION).log(),
        opacities=torch.full((count,), 3.0),
        sh0=torch.tensor((colours - 0.5) / 0.28209479177387814, dtype=torch.float32)[:, None],
        shN=torch.zeros(count, 0, 3),
    )


def shell(shape: trimesh.Trimesh, count: int = 3000) -> Gaussians:
    """A hollow shell on the shape: red where x > 0, blue elsewhere."""
    points = np.asarray(trimesh.sample.sample_surface(shape, count, seed=0)[0])
    return gaussians_at(points, np.where(points[:, :1] > 0, [[1.0, 0.0, 0.0]], [[0.0, 0.0, 1.0]]))


SHAPES = {
    "sphere": trimesh.creation.icosphere(subdivisions=4, radius=RADIUS),
    "box": trimesh.creation.box(extents=(0.9, 0.7, 0.5)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_shell_becomes_one_closed_surface_near_the_shape(name):
    mesh = mesh_of(shell(SHAPES[name]), MeshConfig(resolution=64, faces=3000, texture=0))
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.volume > 0, "faces look outwards"
    assert mesh.body_count == 1, "the hollow inside is filled"
    assert 500 < len(mesh.faces) <= 3100
    ours, theirs = (np.asarray(trimesh.sample.sample_surface(m, 4000, seed=1)[0]) for m in (mesh, SHAPES[name]))
    chamfer = (cKDTree(ours).query(theirs)[0].mean() + cKDTree(theirs).query(ours)[0].mean()) / 2
    assert chamfer < 3 * DEVIATION, "the surface lies within the Gaussians' reach"


def test_a_texture_shows_what_the_gaussians_show():
    mesh = mesh_of(shell(SHAPES["sphere"]), MeshConfig(resolution=48, faces=1500, texture=256))
    scene = trimesh.load(io.BytesIO(glb_bytes(mesh)), file_type="glb")
    (read,) = scene.geometry.values()
    picture = read.visual.material.baseColorTexture
    assert picture.size == (256, 256)
    rows, columns = ((1 - read.visual.uv[:, 1]) * 255).round().astype(int), (read.visual.uv[:, 0] * 255).round()
    colours = np.asarray(picture.convert("RGB"))[rows, columns.astype(int)]
    x = read.vertices[:, 0]
    assert (np.abs(colours[x > 0.15].astype(int) - [255, 0, 0]) < 16).mean() > 0.97
    assert (np.abs(colours[x < -0.15].astype(int) - [0, 0, 255]) < 16).mean() > 0.97
    read.merge_vertices(merge_tex=True, merge_norm=True)
    assert read.is_watertight, "seams double vertices, not places"


def test_colours_survive_the_glb():
    mesh = mesh_of(shell(SHAPES["sphere"]), MeshConfig(resolution=64, faces=3000, texture=0))
    scene = trimesh.load(io.BytesIO(glb_bytes(mesh)), file_type="glb")
    (read,) = scene.geometry.values()
    colours, x = np.asarray(read.visual.vertex_attributes["color"]), read.vertices[:, 0]
    assert read.is_watertight
    assert (colours[x > 0.15, 0] > 200).all()
    assert (colours[x > 0.15, 2] < 30).all()
    assert (colours[x < -0.15, 2] > 200).all()
    assert (colours[x < -0.15, 0] < 30).all()


def test_mid_grey_is_written_linear():
    points = np.asarray(trimesh.sample.sample_surface(SHAPES["sphere"], 2000, seed=0)[0])
    mesh = mesh_of(gaussians_at(points, np.full((2000, 3), 0.5)), MeshConfig(resolution=32, texture=0))
    assert abs(int(np.median(mesh.visual.vertex_colors[:, 0])) - 128) <= 1
    (read,) = trimesh.load(io.BytesIO(glb_bytes(mesh)), file_type="glb").geometry.values()
    assert abs(int(np.median(read.visual.vertex_attributes["color"][:, 0])) - 55) <= 1, "0.5 sRGB is 0.214 linear"


@pytest.mark.parametrize("texture", [0, 64])
def test_baked_colours_are_shown_as_they_are(texture):
    """A mesh made of Gaussians holds the light of their views: another light on top would darken it."""
    from recon.meshes.load import load_mesh, render_turntable

    points = np.asarray(trimesh.sample.sample_surface(SHAPES["sphere"], 2000, seed=0)[0])
    made = mesh_of(gaussians_at(points, np.full((2000, 3), 0.5)), MeshConfig(resolution=32, texture=texture))
    mesh = load_mesh(glb_bytes(made), in_place=True)
    view = render_turntable(mesh, 0.4, 64, 1)[0]
    assert np.abs(view[view[..., 3] == 255][:, :3].astype(int) - 128).max() <= 3
    assert np.linalg.norm(mesh.corners, axis=-1).max() < RADIUS + 4 * DEVIATION


def test_what_a_view_shows_as_empty_is_outside():
    """On a line of samples through a ball: covered within it, nothing where every view sees past it."""
    ball = shell(SHAPES["sphere"])
    line = least_coverage(ball, np.array([-1.0, 0.0, 0.0]), 0.02, (101, 1, 1))[:, 0, 0]
    distance = np.abs(np.linspace(-1, 1, 101))
    assert line[distance < RADIUS - 2 * DEVIATION].min() > 0.95
    assert line[distance > RADIUS + 4 * DEVIATION].max() < 0.05


def test_the_mesh_is_cut_to_the_outlines(monkeypatch):
    ball, config = shell(SHAPES["sphere"]), MeshConfig(resolution=48, texture=0)

    def left_half(_, origin, step, shape):
        x = origin[0] + step * np.arange(shape[0])
        return np.broadcast_to((x < 0)[:, None, None], shape).astype(np.float32)

    monkeypatch.setattr("recon.solid.least_coverage", left_half)
    mesh = mesh_of(ball, config)
    assert mesh.is_watertight
    assert mesh.vertices[:, 0].max() < 0.04 < RADIUS - 0.05 < -mesh.vertices[:, 0].min()
    monkeypatch.setattr("recon.solid.least_coverage", lambda *args: np.zeros(args[-1], np.float32))
    with pytest.raises(ValueError, match="outlines of the Gaussians leave nothing"):
        mesh_of(ball, config)


def test_floaters_are_left_out():
    ball = np.asarray(trimesh.sample.sample_surface(SHAPES["sphere"], 2000, seed=0)[0])
    points = np.concatenate([ball, [[0.0, 1.0, 0.0]] * 10])
    mesh = mesh_of(gaussians_at(points, np.full((2010, 3), 0.5)), MeshConfig(resolution=64, texture=0))
    assert mesh.body_count == 1
    assert mesh.bounds.max() < 0.9


@pytest.mark.parametrize("shift", [0.0, 2.0])
def test_a_ball_beyond_the_unit_sphere_is_meshed_whole(shift):
    points = np.asarray(trimesh.sample.sample_surface(SHAPES["sphere"], 2000, seed=0)[0])
    points[:, 0] += shift
    mesh = mesh_of(gaussians_at(points, np.full((2000, 3), 0.5)), MeshConfig(resolution=48, texture=0))
    assert mesh.bounds[:, 0] == pytest.approx([shift - RADIUS, shift + RADIUS], abs=3 * DEVIATION)
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * (RADIUS + DEVIATION) ** 3, rel=0.25)


@pytest.mark.parametrize(
    ("change", "message"), [("means", "means hold"), ("empty", "0 Gaussians"), ("faint", "lower mesh.density")]
)
def test_what_cannot_be_meshed_is_named(change, message):
    gaussians = shell(SHAPES["sphere"], 0 if change == "empty" else 50)
    if change == "means":
        gaussians.means[3, 1] = float("nan")
    if change == "faint":
        gaussians.opacities -= 12
    with pytest.raises(ValueError, match=message):
        mesh_of(gaussians, MeshConfig(resolution=32, texture=0))
