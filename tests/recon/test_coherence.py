"""The elevation under which the outlines of solids agree; outlines are drawn from points on the solids."""

import math

import numpy as np
import pytest
import trimesh
from scipy import ndimage

from recon.cameras import turntable
from recon.coherence import coherent_elevation, incoherence
from recon.config import OrbitConfig


def outlines(solid: trimesh.Trimesh, elevation: float, orbit: OrbitConfig | None = None, size: int = 64) -> np.ndarray:
    points = trimesh.sample.sample_surface(solid, 60_000, seed=0)[0]
    cameras, masks = turntable(elevation, size, orbit), []
    for viewmat, K in zip(cameras.viewmats.numpy(), cameras.Ks.numpy(), strict=True):
        seen = (points @ viewmat[:3, :3].T + viewmat[:3, 3]) @ K.T
        column, row = (seen[:, :2] / seen[:, 2:]).astype(int).T
        masks.append(np.zeros((size, size), np.uint8))
        masks[-1][row, column] = 255
    return np.stack(masks)


def bracket() -> trimesh.Trimesh:
    """A plate with a post off its middle: no two of its outlines are alike."""
    plate = trimesh.creation.box((1.4, 0.2, 0.9))
    post = trimesh.creation.box((0.3, 0.7, 0.3))
    post.apply_translation((0.5, 0.4, 0.2))
    return trimesh.util.concatenate([plate, post])


@pytest.mark.parametrize("degrees", [4, 21, 40])
@pytest.mark.parametrize("error", [-12, 12])
def test_a_wrong_estimate_is_corrected(degrees, error):
    found = coherent_elevation(outlines(bracket(), math.radians(degrees)), math.radians(degrees + error))
    assert math.degrees(found) == pytest.approx(degrees, abs=1.5)


def test_other_cameras_are_heeded():
    orbit = OrbitConfig(num_views=8, fov_degrees=30, distance=4.0)
    assert coherent_elevation(outlines(bracket(), 0.5, orbit), 0.3, orbit) == pytest.approx(0.5, abs=0.03)


def test_a_ball_agrees_with_every_estimate():
    ball = outlines(trimesh.creation.icosphere(5, radius=0.7), 0.4, size=128)
    for estimate in (0.1, 0.4, 0.7):
        assert coherent_elevation(ball, estimate) == pytest.approx(estimate, abs=math.radians(4))


@pytest.mark.parametrize("shift", [20, None])
def test_one_broken_frame_does_not_decide(shift):
    masks = outlines(bracket(), 0.5)
    masks[3] = 0 if shift is None else np.roll(masks[9], shift, 0)
    assert coherent_elevation(masks, 0.3) == pytest.approx(0.5, abs=math.radians(1.5))


@pytest.mark.parametrize("masks", [np.zeros((16, 32, 32)), np.full((16, 32, 32), 255), 255 * np.eye(32)[None]])
def test_outlines_that_tell_nothing_leave_the_estimate(masks):
    assert coherent_elevation(masks.astype(np.uint8), 0.3) == pytest.approx(0.3, abs=0.002)


def test_incoherence_is_least_at_the_truth():
    found = incoherence(outlines(bracket(), 0.35), np.array([0.15, 0.35, 0.55]))
    assert found[1] < 0.2 * min(found[0], found[2])


@pytest.mark.parametrize("shape", [(16, 32, 24), (32, 32)])
def test_what_is_no_turntable_is_refused(shape):
    with pytest.raises(ValueError, match="uint8"):
        coherent_elevation(np.zeros(shape, np.uint8), 0.3)


def test_masks_in_other_units_and_estimates_that_are_none_are_refused():
    with pytest.raises(ValueError, match="uint8"):
        coherent_elevation(outlines(bracket(), 0.5) / 255, 0.3)
    with pytest.raises(ValueError, match="finite"):
        coherent_elevation(outlines(bracket(), 0.5), float("nan"))


def test_faint_pixels_around_the_object_are_outside():
    masks = outlines(bracket(), 0.5)
    faint = np.maximum(masks, ndimage.grey_dilation(masks, (1, 5, 5)) // 3)
    assert coherent_elevation(faint, 0.4) == coherent_elevation(masks, 0.4)
