import math

import numpy as np
import pytest
import torch

from recon.cameras import OrbitConfig, azimuths, look_at_origin, turntable
from recon.config import DensifyConfig, FitConfig, PoseConfig
from recon.fit import fit
from recon.gaussians import Gaussians, render
from recon.loss_weights import LossConfig
from recon.pose import Pose, raise_cameras, turn_cameras
from recon.refine import LoopConfig, Turntable, reconstruct

SIZE, TRUE_ELEVATION = 32, 0.5


def coloured_cross(views: int, elevation: float, gains: torch.Tensor | None = None) -> np.ndarray:
    """RGBA uint8 [V,S,S,4] of three coloured bars that no rotation maps onto each other."""
    steps = torch.linspace(-0.6, 0.6, 9)
    zero, one = torch.zeros(9), torch.ones(9)
    means = torch.cat(
        [torch.stack(rows, 1) for rows in ((steps, zero, zero), (zero, steps, zero), (0.4 * one, zero, steps))]
    )
    colours = torch.tensor([[1.2, -1.0, -1.0], [-1.0, 1.2, -1.0], [-1.0, -1.0, 1.2]]).repeat_interleave(9, 0)
    gaussians = Gaussians(
        means=means, quats=torch.tensor([1.0, 0, 0, 0]).repeat(27, 1), scales=torch.full((27, 3), math.log(0.09)),
        opacities=torch.full((27,), 4.0), sh0=colours[:, None], shN=torch.zeros(27, 0, 3),
    )  # fmt: skip
    rgb, alpha = render(gaussians, turntable(elevation, SIZE, OrbitConfig(num_views=views)))
    if gains is not None:
        rgb = rgb + gains[:, None, None, None] * (rgb - (1 - alpha))
    return (torch.cat([rgb, alpha], -1).clamp(0, 1) * 255).round().byte().numpy()


def quick(**pose) -> FitConfig:
    loss = LossConfig(lpips=0.0, ms_ssim=0.0, mask=1.0, rgb=2.0)
    densify = DensifyConfig(max_gaussians=600)
    pose = PoseConfig(**{"rate": 5e-3, "trial_iterations": 120, **pose})
    return FitConfig(iterations=160, num_points=400, loss=loss, densify=densify, pose=pose)


@pytest.mark.parametrize("elevation", [-0.4, 0.0, 0.6])
def test_turned_and_raised_cameras_are_those_of_the_other_angles(elevation):
    angles = azimuths(OrbitConfig(num_views=5))
    base = look_at_origin(angles, torch.full((5,), elevation), 3.0)
    moved = raise_cameras(turn_cameras(base, torch.full((5,), 0.2)), torch.full((5,), 0.3))
    assert torch.allclose(moved, look_at_origin(angles + 0.2, torch.full((5,), elevation + 0.3), 3.0), atol=1e-6)


def test_corrections_start_at_nothing_and_have_no_common_part():
    base = turntable(0.3, SIZE).viewmats
    pose = Pose(base, PoseConfig(elevation=True, views=True, exposure=True))
    every = torch.arange(16)
    assert torch.allclose(pose.viewmats(every), base, atol=1e-6)
    for value in pose.params.values():
        value.data += 0.01
    assert torch.allclose(pose.viewmats(every), pose.viewmats(), atol=1e-6)
    assert pose.elevation == pytest.approx(0.01, rel=0.01)
    rgb, alpha = torch.rand(16, 4, 4, 3), torch.rand(16, 4, 4, 1)
    assert torch.allclose(pose.expose(rgb, alpha, every), rgb, atol=1e-6)


def test_corrections_are_bounded():
    pose = Pose(turntable(0.3, SIZE).viewmats, PoseConfig(elevation=True, limit_degrees=10.0))
    pose.params["elevation"].data += 100.0
    assert pose.elevation == pytest.approx(math.radians(10.0), rel=1e-5)


def test_a_wrong_elevation_is_corrected_and_told():
    frames = coloured_cross(16, TRUE_ELEVATION)
    wrong = TRUE_ELEVATION - math.radians(8)
    given = Turntable(frames=frames, elevation=wrong)
    _, history = reconstruct(given, LoopConfig(fit=quick(elevation=True)))
    assert history[-1]["elevation"] == pytest.approx(TRUE_ELEVATION, abs=math.radians(3))
    _, plain = reconstruct(given, LoopConfig(fit=quick()))
    assert plain[-1]["elevation"] == wrong
    assert history[-1]["losses"]["rgb"] < 0.8 * plain[-1]["losses"]["rgb"]


def test_a_right_elevation_is_left_alone():
    result = fit(coloured_cross(16, 0.3), None, turntable(0.3, SIZE), quick(elevation=True))
    assert torch.equal(result.cameras.viewmats, turntable(0.3, SIZE).viewmats), "the trial finds nothing to gain"


def test_exposures_are_told_from_colours():
    gains = torch.tensor([0.25, -0.25] * 8)
    frames = coloured_cross(16, 0.3, gains)
    losses = [
        fit(frames, None, turntable(0.3, SIZE), quick(exposure=wanted, rate=2e-2)).history[-1]["losses"]["rgb"]
        for wanted in (False, True)
    ]
    assert losses[1] < 0.7 * losses[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trial_iterations": 0}, "trial_iterations"),
        ({"rate": 0.0}, "rate"),
        ({"limit_degrees": 60.0}, "limit_degrees"),
    ],
)
def test_bad_settings_are_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        PoseConfig(**settings)
