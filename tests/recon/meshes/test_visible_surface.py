"""Rays against the surface of spheres and boxes, whose depth and points have closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from factory.evaluation.viewable_asset import Solid, Turn, over_grey, read_shape
from recon.config import OrbitConfig
from recon.gaussians import init_ball
from recon.meshes.visible_surface import mesh_depth, outer_points
from recon.ply import write_ply


def corners(mesh: trimesh.Trimesh) -> np.ndarray:
    return np.asarray(mesh.triangles, np.float32)


def test_depth_of_a_sphere() -> None:
    turn = Turn(elevation=0.4, size=33, orbit=OrbitConfig(num_views=3))
    depth = mesh_depth(corners(trimesh.creation.icosphere(5, 0.5)), turn.cameras)
    middle, distance = depth[:, 16, 16], OrbitConfig().distance
    assert middle == pytest.approx([distance - 0.5] * 3, abs=2e-3)
    assert (depth[:, 0, 0] == 0).all()
    focal = float(turn.cameras.Ks[0, 0, 0])
    radius = focal * 0.5 / np.sqrt(distance**2 - 0.25)
    assert (depth[0] > 0).sum() == pytest.approx(np.pi * radius**2, rel=0.05)


def test_inner_surfaces_do_not_count() -> None:
    inner, outer = trimesh.creation.icosphere(3, 0.3), trimesh.creation.icosphere(3, 0.8)
    points = outer_points(np.concatenate([corners(inner), corners(outer)]), 2000)
    assert len(points) == 2000
    assert np.linalg.norm(points, axis=1) == pytest.approx(0.8, abs=0.01)
    sheet = np.array([[[-1, 0, -1], [1, 0, -1], [0, 0, 1]]], np.float32)
    assert len(outer_points(sheet, 100)) == 100


def test_splats_and_meshes_are_looked_at_alike(tmp_path) -> None:
    gaussians = init_ball(4000, radius=0.5)
    gaussians.opacities += 8
    write_ply(tmp_path / "ball.ply", gaussians)
    ball = read_shape((tmp_path / "ball.ply").read_bytes(), "ball.ply")
    box = trimesh.creation.box((1.0, 1.0, 1.0))
    solid = read_shape(bytes(box.export(file_type="glb")), "x/box.glb", fine=True)  # pyright: ignore
    turn = Turn(elevation=0.2, size=32, orbit=OrbitConfig(num_views=2))
    for shape, nearest in ((ball, 0.5), (solid, 1.0)):
        seen, depth = shape.pictures(turn), shape.depths(turn)
        assert seen.shape == (2, 32, 32, 4)
        assert (seen[:, 0, 0] == [255, 255, 255, 0]).all()
        assert ((depth > 0) == (seen[..., 3] > 127)).mean() > 0.97
        assert np.linalg.norm(shape.points(500), axis=1).max() == pytest.approx(nearest, abs=0.1)
        assert depth[depth > 0].min() > OrbitConfig().distance - 1.1
    wide = Turn(elevation=0.2, size=32, orbit=OrbitConfig(num_views=2, fov_degrees=50))
    covered = [(solid.pictures(look)[..., 3] > 127).sum() for look in (turn, wide)]
    assert covered[1] / covered[0] == pytest.approx((np.tan(np.radians(20)) / np.tan(np.radians(25))) ** 2, rel=0.1)
    assert isinstance(solid, Solid)


def test_grey_shows_where_nothing_covers() -> None:
    pixels = np.array([[255, 255, 255, 0], [200, 0, 0, 255], [228, 128, 128, 128]], np.uint8)
    assert over_grey(pixels, 0.0).tolist() == [[0, 0, 0], [200, 0, 0], [101, 1, 1]]
    assert over_grey(pixels, 1.0).tolist() == pixels[:, :3].tolist()
