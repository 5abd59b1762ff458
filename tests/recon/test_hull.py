"""Where a fit starts: in the space that the outlines leave, in the colours seen there."""

import pytest
import torch

from recon.cameras import Cameras, turntable
from recon.config import FitConfig
from recon.fitter import Fitter
from recon.hull import OUTSIDE, init_hull, look_up

SIZE = 48
CAMERAS = turntable(0.3, SIZE)
COLOUR = torch.tensor([0.8, 0.3, 0.1])


def shadows(points: torch.Tensor, radius: float, cameras: Cameras = CAMERAS) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures [V,S,S,3] of balls of one colour about points [P,3], and their coverage [V,S,S]."""
    steps = torch.arange(cameras.size) + 0.5
    pixels = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1)
    covered = []
    for viewmat, K in zip(cameras.viewmats, cameras.Ks, strict=True):
        centres = points @ viewmat[:3, :3].T + viewmat[:3, 3]
        rays = torch.cat([(pixels - K[:2, 2]) / K[0, 0], torch.ones(*pixels.shape[:2], 1)], -1)
        rays = rays / rays.norm(dim=-1, keepdim=True)
        apart = torch.linalg.cross(
            rays[:, :, None].expand(-1, -1, len(points), 3), centres.expand(*rays.shape[:2], -1, 3)
        )
        covered.append((apart.norm(dim=-1) < radius).any(-1))
    alpha = torch.stack(covered).float()
    return 1 - alpha[..., None] * (1 - COLOUR), alpha


def start(rgb: torch.Tensor, alpha: torch.Tensor, count: int = 400):
    return init_hull(rgb, alpha, CAMERAS, count, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("place", "radius"), [((0.0, 0.0, 0.0), 0.6), ((0.4, -0.5, 0.3), 0.25), ((0.0, 0.6, 0.0), 0.07)]
)
def test_every_gaussian_starts_in_the_object_and_in_its_colour(place, radius):
    centre = torch.tensor([place])
    made = start(*shadows(centre, radius))
    distances = (made.means - centre).norm(dim=-1)
    assert len(made) == 400
    assert (distances < 1.25 * radius + 0.03).float().mean() > 0.97
    assert distances.quantile(0.9) > 0.7 * radius  # they fill it
    assert (made.base_colours - COLOUR).abs().mean() < 0.06
    spread = radius / 400 ** (1 / 3)
    assert made.standard_deviations.mean() == pytest.approx(spread, rel=0.5)


def test_two_separate_parts_both_have_gaussians():
    parts = torch.tensor([[0.0, 0.6, 0.0], [0.0, -0.6, 0.0]])
    made = start(*shadows(parts, 0.2))
    nearest = torch.cdist(made.means, parts).argmin(1)
    assert 0.35 < nearest.float().mean() < 0.65


def test_outlines_that_contradict_each_other_still_give_a_start():
    rgb, alpha = shadows(torch.zeros(1, 3), 0.5)
    alpha[::2, :, SIZE // 2 :] = 0
    alpha[1::2, :, : SIZE // 2] = 0
    made = start(rgb, alpha)
    assert len(made) == 400
    assert all(torch.isfinite(value).all() for value in (made.means, made.scales, made.sh0))
    assert made.means.norm(dim=-1).max() < 1.3


def test_a_few_wrong_outlines_do_not_carve():
    rgb, alpha = shadows(torch.zeros(1, 3), 0.5)
    alpha[: int(OUTSIDE * len(alpha))] = 0
    distances = start(rgb, alpha).means.norm(dim=-1)
    assert distances.quantile(0.9) > 0.35
    assert (distances < 0.65).float().mean() > 0.97


def test_a_fit_from_the_hull_is_ahead_of_one_from_the_ball_and_repeats():
    rgb, alpha = shadows(torch.tensor([[0.0, -0.6, 0.0], [0.0, 0.5, 0.0]]), 0.3)
    rgb = 1 - alpha[..., None] * torch.full((3,), 0.04)  # what is nearly white hardly pulls
    frames = (torch.cat([rgb, alpha[..., None]], -1) * 255).round().byte().numpy()
    losses, found = {}, []
    for init in ("ball", "hull", "hull"):
        fitter = Fitter(CAMERAS, FitConfig(iterations=20, num_points=400, init=init), seed=1)
        fitter.set_targets(frames)
        losses[init] = fitter.run(20)[-1]["losses"]["mask"]
        found.append(fitter.gaussians.means)
    assert losses["hull"] < 0.5 * losses["ball"]
    assert torch.equal(found[1], found[2])


@pytest.mark.parametrize("count", [1, 2, 400])
@pytest.mark.parametrize("pixels", [slice(0, 1), slice(23, 24)])
def test_hardly_any_mask_still_gives_a_start_in_the_unit_ball(pixels, count):
    alpha = torch.zeros(len(CAMERAS), SIZE, SIZE)
    alpha[0, pixels, pixels] = 1
    made = init_hull(1 - 0.5 * alpha[..., None].expand(-1, -1, -1, 3), alpha, CAMERAS, count, sh_degree=2)
    assert len(made) == count
    assert made.sh_degree == 2
    assert made.means.norm(dim=-1).max() <= 1
    assert made.standard_deviations.max() <= 0.5


def test_views_that_do_not_have_a_place_in_the_picture_do_not_count():
    close = turntable(0.3, SIZE)
    Ks = close.Ks.clone()
    Ks[:, :2, :2] *= 4  # only the middle is in the picture
    covered, _ = look_up(
        torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.95, 0.0]]), torch.zeros(len(close), SIZE, SIZE, 3),
        torch.ones(len(close), SIZE, SIZE), Cameras(viewmats=close.viewmats, Ks=Ks, size=SIZE),
    )  # fmt: skip
    assert covered.tolist() == [1.0, 0.0]


def test_an_unknown_start_is_refused():
    with pytest.raises(ValueError, match="available: ball, hull"):
        FitConfig(init="cube")  # pyright: ignore[reportArgumentType]
