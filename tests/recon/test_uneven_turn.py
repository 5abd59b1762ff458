"""Azimuths from frames alone: renders whose turn is uneven, reversed or short of a circle, and videos that are none."""

import math

import numpy as np
import pytest
import trimesh

from recon.cameras import around
from recon.meshes.load import load_mesh, render_mesh
from recon.uneven_turn import estimate_turn
from recon.user_error import UserError

FRAMES, SIDE = 33, 64
TIMES = np.linspace(0, 1, FRAMES)


def bracket(height: float = 0.6):
    """A plate with a post off its middle, every face of another colour."""
    plate = trimesh.creation.box((1.1, 0.16, 0.7)).subdivide().subdivide()
    post = trimesh.creation.box((0.25, height, 0.25)).subdivide()
    post.apply_translation((0.4, 0.05 + height / 2, 0.15))
    both = trimesh.util.concatenate([plate, post])
    colours = np.random.default_rng(0).integers(20, 230, (len(both.faces), 3))
    faces = np.column_stack([colours, np.full(len(colours), 255)]).astype(np.uint8)
    both.visual = trimesh.visual.ColorVisuals(both, face_colors=faces)
    return load_mesh(both.export(file_type="glb"), "glb")


def video(azimuths: np.ndarray, elevation: float = 0.3, mesh=None) -> np.ndarray:
    return render_mesh(mesh or bracket(), around(azimuths.tolist(), elevation, SIDE))


@pytest.mark.parametrize(
    ("degrees", "progress", "elevation"),
    [
        (360, 0.4 * TIMES + 0.6 * TIMES**2, 0.3),
        (-300, 0.4 * TIMES + 0.6 * TIMES**2, 0.35),
        (-360, 1 - (1 - TIMES) ** 1.7, 0.1),
        (-360, TIMES, 0.0),
    ],
    ids=["faster and faster", "clockwise and not all round", "clockwise and slower", "clockwise at eye level"],
)
def test_the_azimuths_of_an_uneven_turn_are_found(degrees: float, progress: np.ndarray, elevation: float) -> None:
    truth = math.radians(degrees) * progress
    frames = video(truth, elevation)
    found = estimate_turn(frames[..., :3], frames[..., 3])
    errors = np.degrees(np.abs(np.array(found.azimuths) - truth))
    assert errors.mean() < 5
    assert errors.max() < 12
    assert found.azimuths[0] == 0
    assert found.elevation == pytest.approx(elevation, abs=math.radians(3))


def still() -> np.ndarray:
    return np.repeat(video(np.zeros(1)), FRAMES, 0)


def rocking() -> np.ndarray:
    return video(0.8 * np.sin(TIMES * 2 * math.pi))


def quarter() -> np.ndarray:
    return video(math.radians(80) * TIMES)


def shrinking() -> np.ndarray:
    """The object turns all round and its post goes down meanwhile."""
    meshes = [bracket(0.7 - 0.55 * abs(math.sin(3 * math.pi * t))) for t in TIMES]
    return np.concatenate(
        [video(np.array([2 * math.pi * t]), mesh=mesh) for t, mesh in zip(TIMES, meshes, strict=True)]
    )


def vanishing() -> np.ndarray:
    frames = video(2 * math.pi * TIMES)
    frames[20:] = (255, 255, 255, 0)
    return frames


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (still, r"no turn: its frames differ by 0\.0% at most, nothing moves"),
        (rocking, "no turn: .*% of its motion goes back again"),
        (quarter, r"shows \d+ degrees of a turn; a fit needs 150|of one rigid object"),
        (shrinking, "no turn of one rigid object: its outlines agree to"),
        (vanishing, "in some frames no object is found"),
    ],
)
def test_a_video_that_is_no_turn_is_refused_with_the_reason(frames, message: str) -> None:
    made = frames()
    with pytest.raises(UserError, match=message):
        estimate_turn(made[..., :3], made[..., 3])


def test_too_few_frames_are_refused() -> None:
    with pytest.raises(UserError, match=r"4 frames .* are too few"):
        estimate_turn(np.zeros((4, 8, 8, 3), np.uint8), np.zeros((4, 8, 8), np.uint8))
