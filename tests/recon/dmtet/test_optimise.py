"""A mesh is optimised on true views of a known shape; what cannot be optimised is named, and nothing is ever a NaN."""

import io
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh

from recon.cameras import Cameras, OrbitConfig, turntable
from recon.config import FitConfig, MeshConfig
from recon.dmtet.optimise import optimised_mesh
from recon.gaussians import Gaussians
from recon.mesh import glb_bytes, meshes_of
from recon.meshes.load import load_mesh, render_mesh

SIZE = 48
CAMERAS = turntable(0.4, SIZE, OrbitConfig(num_views=8))
CONFIG = MeshConfig(enabled=True, optimise=True, iterations=60, resolution=32, faces=3000, texture=0)
FIT = FitConfig(device="cpu")


@pytest.fixture(autouse=True)
def small_outlines(monkeypatch):
    """The outlines that meshes are cut to at a quarter of the size, which is enough for pictures this small."""
    monkeypatch.setattr("recon.silhouettes.SIDE", 96)


def views_of(shape: trimesh.Trimesh, cameras: Cameras) -> np.ndarray:
    """[V,S,S,4] of a shape where it stands, without light."""
    mesh = load_mesh(shape.export(file_type="glb"), "glb", in_place=True)
    mesh.lit[:] = False
    return render_mesh(mesh, cameras)


def gaussians_on(shape: trimesh.Trimesh, deviation: float = 0.03, count: int = 2500) -> Gaussians:
    """Grey Gaussians on the shape, which reach beyond it."""
    points = trimesh.sample.sample_surface(shape, count, seed=0)[0]
    return Gaussians(
        means=torch.tensor(points, dtype=torch.float32), quats=torch.tensor([1.0, 0, 0, 0]).repeat(count, 1),
        scales=torch.full((count, 3), deviation).log(), opacities=torch.full((count,), 3.0),
        sh0=torch.zeros(count, 1, 3), shN=torch.zeros(count, 0, 3),
    )  # fmt: skip


def targets_of(shape: trimesh.Trimesh) -> dict:
    frames = views_of(shape, CAMERAS)
    return {"targets": frames, "masks": frames[..., 3], "cameras": CAMERAS}


def box(extents=(0.9, 0.6, 0.5)) -> trimesh.Trimesh:
    """Red where x > 0, blue elsewhere."""
    made = trimesh.creation.box(extents).subdivide().subdivide()
    made.visual.face_colors = np.where(made.triangles_center[:, :1] > 0, [[220, 40, 40, 255]], [[40, 40, 220, 255]])
    return made


def errors(levels, cameras: Cameras, shape: trimesh.Trimesh) -> tuple[float, float]:
    """Mean squared errors of colour and of coverage on views between the targets'."""
    ours = render_mesh(load_mesh(glb_bytes(levels[0]), in_place=True), cameras) / 255
    apart = (ours - views_of(shape, cameras) / 255) ** 2
    return float(apart[..., :3].mean()), float(apart[..., 3].mean())


def test_the_mesh_comes_nearer_to_the_shape_on_unseen_views():
    shape, between = box(), turntable(0.4, SIZE, OrbitConfig(num_views=5), 0.3)
    config = replace(CONFIG, resolution=64, iterations=150)
    given = gaussians_on(shape, 0.015, 6000)
    colour, outline = errors(meshes_of(given, config, CAMERAS), between, shape)
    levels, history = optimised_mesh(given, targets_of(shape), config, FIT)
    better_colour, better_outline = errors(levels, between, shape)
    assert better_colour < 0.9 * colour, "grey begins to turn red and blue"
    assert better_outline < 0.7 * outline
    assert levels[0].is_watertight
    assert levels[0].is_winding_consistent
    assert history[-1]["iteration"] == 150
    assert {"lpips_pocket", "ms_ssim", "mask"} == set(history[-1]["losses"])


def test_equal_seeds_give_equal_meshes():
    shape, config = box(), MeshConfig(enabled=True, optimise=True, iterations=5, resolution=32, texture=0)
    made = [optimised_mesh(gaussians_on(shape), targets_of(shape), config, FIT, seed=3)[0][0] for _ in range(2)]
    assert np.array_equal(made[0].vertices, made[1].vertices)
    assert np.array_equal(made[0].visual.vertex_colors, made[1].visual.vertex_colors)


def test_rounds_exchange_the_targets():
    """A round turns the frames green; the mesh that is shown to it is the one so far."""
    shape, shown = box(), []

    def redenoise(draw, number: int) -> tuple[np.ndarray, np.ndarray]:
        views = draw(CAMERAS)
        shown.append((views, number))
        green = views.copy()
        green[views[..., 3] > 127, :3] = [40, 200, 40]
        return green, views[..., 3]

    config = MeshConfig(
        enabled=True, optimise=True, iterations=45, rounds_at=(5, 10, 45), resolution=32, texture=0, faces=2000
    )
    levels, history = optimised_mesh(gaussians_on(shape), targets_of(shape), config, FIT, redenoise)
    assert [number for _, number in shown] == [1, 2], "a round at the end changes nothing"
    assert shown[0][0].shape == (8, SIZE, SIZE, 4)
    assert [part["iteration"] for part in history] == [5, 10, 45]
    means = np.asarray(levels[0].visual.vertex_colors)[:, :3].mean(0)
    assert means[1] > means[0]
    assert means[1] > means[2]


def test_levels_are_closed_and_each_is_coarser():
    config = MeshConfig(enabled=True, resolution=48, faces=2000, texture=64, lods=3)
    ball = trimesh.creation.icosphere(subdivisions=4, radius=0.7)
    levels = meshes_of(gaussians_on(ball), config, CAMERAS)
    counts = [len(level.faces) for level in levels]
    assert len(levels) == 4
    assert all(fewer <= 0.5 * more for more, fewer in itertools.pairwise(counts))
    assert counts[1] <= 500
    for level in levels:
        closed = level.copy()
        closed.merge_vertices(merge_tex=True, merge_norm=True)
        assert closed.is_watertight
        reach = np.linalg.norm(closed.vertices, axis=1)
        assert reach.max() < 0.8
        assert reach.min() > 0.5, "flat where no camera looks, below"
    sides = [level.visual.material.baseColorTexture.size[0] for level in levels]
    assert sides == [64, 32, 16, 16]
    data = glb_bytes(levels)
    assert len(load_mesh(data, in_place=True).corners) == counts[0], "a reader shows the finest alone"
    assert len(trimesh.load(io.BytesIO(data), file_type="glb").geometry) >= 1


THIN = trimesh.creation.cylinder(radius=0.02, height=1.6)
TWO = trimesh.util.concatenate([box((0.4, 0.4, 0.4)).apply_translation([x, 0, 0]) for x in (-0.5, 0.5)])
BALL = trimesh.creation.icosphere(subdivisions=3, radius=0.7)
SHELL = BALL.submesh([BALL.triangles_center[:, 1] > 0], append=True)
FILLING = trimesh.creation.icosphere(subdivisions=3, radius=1.0)


@pytest.mark.parametrize(("shape", "parts"), [(THIN, 1), (TWO, 2), (SHELL, 1), (FILLING, 1)],
                         ids=["thin rod", "two parts", "open shell", "fills the frame"])  # fmt: skip
def test_odd_shapes_become_closed_meshes_of_numbers(shape, parts):
    config = MeshConfig(enabled=True, optimise=True, iterations=5, resolution=48, faces=2000, texture=0)
    (mesh,), _ = optimised_mesh(gaussians_on(shape), targets_of(shape), config, FIT)
    assert np.isfinite(mesh.vertices).all()
    assert mesh.is_watertight
    volumes = np.array([part.volume for part in mesh.split(only_watertight=False)])
    assert (volumes > 0.01 * volumes.max()).sum() == parts
    low, high = np.abs(mesh.bounds - shape.bounds).max(1)
    assert max(low, high) < 0.25
    assert load_mesh(glb_bytes(mesh), in_place=True).corners.shape[1:] == (3, 3)


def test_frames_without_an_object_are_refused():
    shape = box()
    targets = targets_of(shape)
    targets["masks"] = np.zeros_like(targets["masks"])
    with pytest.raises(ValueError, match="no mask holds an object"):
        optimised_mesh(gaussians_on(shape), targets, CONFIG, FIT)


def test_settings_that_contradict_each_other_are_named():
    with pytest.raises(ValueError, match=r"set mesh\.enabled too"):
        MeshConfig(optimise=True)
    with pytest.raises(ValueError, match=r"set mesh\.optimise too"):
        MeshConfig(enabled=True, rounds_at=(10,))
    with pytest.raises(ValueError, match=r"mesh\.rounds_at is \(20, 10\)"):
        MeshConfig(enabled=True, optimise=True, rounds_at=(20, 10))
    with pytest.raises(ValueError, match=r"mesh\.lods 7"):
        MeshConfig(lods=7)
