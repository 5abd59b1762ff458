import math

import numpy as np
import pytest
import torch

from recon.cameras import OrbitConfig, turntable
from recon.loss_weights import LossConfig
from recon.memory import PeakMemory
from recon.nerf import fit_nerf
from recon.nerf_config import NerfConfig
from recon.voxels import VoxelField, silhouette_hull, view_rays

SIZE = 32
QUICK = NerfConfig(iterations=6, resolution=16, samples=16, size=SIZE, device="cpu")


def two_colours(cameras, radius: float = 0.6) -> np.ndarray:
    """RGBA uint8 [V,S,S,4] of a ball, red above y = 0 and blue below, traced through its pixels' centres."""
    frames = []
    for view in range(len(cameras)):
        eye, rays = view_rays(cameras, view, torch.device("cpu"))
        along = -(rays @ eye)
        root = along.square() - eye.square().sum() + radius**2
        hit = root > 0
        height = (eye + (along - root.clamp_min(0).sqrt())[:, None] * rays)[:, 1:2]
        colour = torch.where(height > 0, torch.tensor([0.8, 0.1, 0.1]), torch.tensor([0.1, 0.2, 0.9]))
        rgb = torch.where(hit[:, None], colour, torch.ones(3))
        frames.append(torch.cat([rgb, hit[:, None].float()], -1).view(cameras.size, cameras.size, 4))
    return (torch.stack(frames) * 255).round().byte().numpy()


def test_a_ball_of_two_colours_is_recovered_on_views_between_the_fitted_ones():
    cameras = turntable(0.3, SIZE)
    config = NerfConfig(iterations=100, resolution=32, samples=40, size=SIZE)
    result = fit_nerf(two_colours(cameras), None, cameras, config, seed=1)
    unseen = turntable(0.3, SIZE, OrbitConfig(num_views=8), start=math.pi / 16)
    truth = torch.from_numpy(two_colours(unseen)).float() / 255
    rgb, alpha = result.field.render(unseen)
    ours, theirs = alpha[..., 0] > 0.5, truth[..., 3] > 0.5
    assert -10 * (rgb - truth[..., :3]).square().mean().log10() > 18
    assert (ours & theirs).sum() / (ours | theirs).sum() > 0.93
    assert result.history[-1]["losses"]["lpips_pocket"] < result.history[0]["losses"]["lpips_pocket"]
    assert result.seconds > 0
    assert result.peak_bytes is None or result.peak_bytes > 4 * 4 * 32**3


def test_a_uniform_ball_has_the_transmittance_of_its_chords():
    side, sigma = 65, 3.0
    steps = torch.linspace(-1, 1, side)
    z, y, x = torch.meshgrid(steps, steps, steps, indexing="ij")
    logits = torch.zeros(1, 4, side, side, side)
    logits[:, 0] = math.log(math.expm1(sigma))
    field = VoxelField(logits, (x**2 + y**2 + z**2) < 2, 2 / 500, 0.0)
    heights = torch.tensor([0.0, 0.3, 0.6, 0.9])
    origin = torch.tensor([0.0, 0.0, 3.0])
    targets = torch.stack([heights, torch.zeros(4), torch.zeros(4)], -1)
    directions = torch.nn.functional.normalize(targets - origin, dim=-1)
    _, alpha = field.march(origin, directions)
    nearest = origin.square().sum() - (directions @ origin).square()
    chords = 2 * (1 - nearest).sqrt()
    torch.testing.assert_close(alpha[:, 0], 1 - torch.exp(-sigma * chords), atol=0.01, rtol=0)


def test_the_hull_holds_the_ball_and_little_more():
    cameras = turntable(0.3, 64)
    masks = torch.from_numpy(two_colours(cameras)[..., 3]).float() / 255
    hull = silhouette_hull(masks, cameras, 32)
    steps = torch.linspace(-1, 1, 32)
    z, y, x = torch.meshgrid(steps, steps, steps, indexing="ij")
    radius = (x**2 + y**2 + z**2).sqrt()
    assert hull[radius < 0.6].all()
    assert not hull[(x**2 + z**2).sqrt() > 0.9].any()
    masks[3] = 0
    assert silhouette_hull(masks, cameras, 32)[radius < 0.6].all(), "one bad view empties nothing"


def test_peak_memory_is_what_a_block_took_and_gave_back():
    with PeakMemory(torch.device("cpu")) as memory:
        np.ones(64 << 20, np.uint8)  # more than what malloc keeps for itself
    if memory.bytes is None:
        pytest.skip("this system does not tell a process's peak memory")
    assert 63 << 20 < memory.bytes < 128 << 20
    with PeakMemory(torch.device("cpu")) as memory:
        pass
    assert memory.bytes is not None
    assert memory.bytes < 8 << 20, "an earlier peak is forgotten"


def test_larger_targets_are_averaged_and_renders_may_have_any_size():
    cameras = turntable(0.3, 2 * SIZE)
    result = fit_nerf(two_colours(cameras), None, cameras, QUICK)
    rgb, alpha = result.field.render(turntable(0.1, 20, OrbitConfig(num_views=3)), rays=77)
    assert rgb.shape == (3, 20, 20, 3)
    assert alpha.shape == (3, 20, 20, 1)
    assert torch.isfinite(rgb).all()


def test_equal_seeds_give_equal_fields_and_terms_follow_the_weights():
    cameras = turntable(0.3, SIZE)
    frames = two_colours(cameras)
    config = NerfConfig(**{**vars_of(QUICK), "loss": LossConfig(lpips=0, rgb=1.0)})
    first, second, other = (fit_nerf(frames, None, cameras, config, seed) for seed in (1, 1, 2))
    assert torch.equal(first.field.logits, second.field.logits)
    assert not torch.equal(first.field.logits, other.field.logits)
    assert set(first.history[-1]["losses"]) == {"ms_ssim", "mask", "rgb"}


def vars_of(config: NerfConfig) -> dict:
    return {name: getattr(config, name) for name in NerfConfig.__slots__}


@pytest.mark.parametrize(
    ("change", "message"),
    [({"size": 8}, r"nerf\.size"), ({"samples": 1}, r"nerf\.samples"), ({"iterations": 0}, r"nerf\.iterations"),
     ({"rate_colour": 0.0}, "rate_colour")],
)  # fmt: skip
def test_bad_settings_are_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        NerfConfig(**change)


def test_targets_that_do_not_fit_are_refused():
    cameras = turntable(0.3, 48)
    with pytest.raises(ValueError, match=r"nerf\.size"):
        fit_nerf(two_colours(cameras), None, cameras, QUICK)
    with pytest.raises(ValueError, match="no mask holds an object"):
        fit_nerf(np.full((16, 32, 32, 4), [255, 255, 255, 0], np.uint8), None, turntable(0.3, 32), QUICK)
