import math

import pytest
import torch

from recon.cameras import OrbitConfig, intrinsics, look_at_origin, turntable


def project(cameras, view: int, point: list[float]) -> torch.Tensor:
    """Pixel x, y and depth of a world point in one view."""
    camera = cameras.viewmats[view] @ torch.tensor([*point, 1.0])
    pixel = cameras.Ks[view] @ camera[:3]
    return torch.cat([pixel[:2] / pixel[2], camera[2:3]])


@pytest.mark.parametrize("elevation", [0.0, 0.4, -0.7])
@pytest.mark.parametrize("size", [64, 129])
def test_every_camera_looks_at_the_origin_from_the_same_distance(elevation, size):
    cameras = turntable(elevation, size)
    assert len(cameras) == 16
    for view in range(16):
        expected = torch.tensor([size / 2, size / 2, 3.0115])
        assert torch.allclose(project(cameras, view, [0.0, 0.0, 0.0]), expected, atol=1e-4)


def test_viewmats_are_rigid_and_right_handed():
    rotations = turntable(0.5, 64).viewmats[:, :3, :3]
    assert torch.allclose(rotations @ rotations.transpose(1, 2), torch.eye(3).expand(16, 3, 3), atol=1e-6)
    assert torch.allclose(torch.linalg.det(rotations), torch.ones(16), atol=1e-6)


def test_up_is_up_and_the_front_is_at_azimuth_zero():
    cameras = turntable(0.0, 100)
    assert project(cameras, 0, [0.0, 0.5, 0.0])[1] < 50
    assert project(cameras, 0, [0.5, 0.0, 0.0])[0] > 50
    assert project(cameras, 0, [0.0, 0.0, 1.0])[2] == pytest.approx(2.0115, abs=1e-5)


def test_a_quarter_turn_moves_the_camera_to_plus_x():
    cameras = turntable(0.0, 100)
    assert project(cameras, 4, [1.0, 0.0, 0.0])[2] == pytest.approx(2.0115, abs=1e-5)
    assert project(cameras, 4, [0.0, 0.0, 0.5])[0] < 50


def test_elevation_lifts_the_camera():
    viewmat = turntable(math.pi / 6, 64).viewmats[0]
    centre = -viewmat[:3, :3].T @ viewmat[:3, 3]
    expected = 3.0115 * torch.tensor([0.0, math.sin(math.pi / 6), math.cos(math.pi / 6)])
    assert torch.allclose(centre, expected, atol=1e-5)


def test_start_azimuth_continues_the_turn():
    shifted = turntable(0.2, 64, start=2 * math.pi / 16).viewmats
    assert torch.allclose(shifted[:-1], turntable(0.2, 64).viewmats[1:], atol=1e-6)


@pytest.mark.parametrize("fov", [20.0, 40.0, 90.0])
def test_the_field_of_view_ends_at_the_image_border(fov):
    matrix = intrinsics(200, fov)
    edge = matrix @ torch.tensor([math.tan(math.radians(fov) / 2), 0.0, 1.0])
    assert edge[0] == pytest.approx(200, abs=1e-3)
    assert matrix[0, 0] == matrix[1, 1]


def test_the_unit_sphere_is_inside_the_default_frame():
    focal = intrinsics(128, 40.0)[0, 0]
    silhouette = focal * math.tan(math.asin(1 / 3.0115))
    assert 0.95 * 64 < silhouette < 64


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_views": 0}, "num_views is 0"),
        ({"fov_degrees": 120.0}, "fov_degrees is 120"),
        ({"distance": 1.0}, "distance"),
    ],
)
def test_bad_orbits_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        OrbitConfig(**fields)


def test_poles_and_empty_images_are_refused():
    with pytest.raises(ValueError, match="pole"):
        look_at_origin(torch.zeros(1), torch.tensor([math.pi / 2]), 3.0)
    with pytest.raises(ValueError, match="size is 0"):
        intrinsics(0, 40.0)
