import pytest
import torch

from recon.loss_weights import LossConfig
from recon.losses import FitLoss


@pytest.fixture(scope="module")
def scene():
    generator = torch.Generator().manual_seed(3)
    rgb = torch.nn.functional.interpolate(torch.rand(4, 3, 8, 8, generator=generator), size=64, mode="bilinear")
    return rgb.permute(0, 2, 3, 1).contiguous(), torch.rand(4, 64, 64, generator=generator)


def test_perfect_renders_cost_nothing(scene):
    rgb, alpha = scene
    loss = FitLoss(LossConfig(rgb=1.0, rgb_l1=1.0), rgb, alpha)
    terms = loss.terms(rgb, alpha[..., None], torch.arange(4))
    assert list(terms) == ["lpips_pocket", "ms_ssim", "mask", "rgb", "rgb_l1"]
    assert all(value.shape == (4,) and value.abs().max() < 1e-5 for value in terms.values()), terms


def test_total_is_the_weighted_sum_of_the_paper(scene):
    rgb, alpha = scene
    loss = FitLoss(LossConfig(), rgb, alpha)
    terms = loss.terms(rgb.roll(3, 1), alpha[..., None].flip(1), torch.arange(4))
    wanted = 10 * terms["lpips_pocket"] + 0.2 * terms["ms_ssim"] + 1 * terms["mask"]
    assert torch.allclose(loss.total(terms), wanted, rtol=1e-6)
    assert min(value.min() for value in terms.values()) > 0


def test_terms_follow_the_chosen_views(scene):
    rgb, alpha = scene
    loss = FitLoss(LossConfig(), rgb, alpha)
    right = loss.total(loss.terms(rgb[[3, 1]], alpha[[3, 1]][..., None], torch.tensor([3, 1])))
    wrong = loss.total(loss.terms(rgb[[3, 1]], alpha[[3, 1]][..., None], torch.tensor([1, 3])))
    half = loss.total(loss.terms(rgb[[3, 1]], alpha[[3, 1]][..., None], torch.tensor([3, 3])))
    assert right.max() < 1e-4 < wrong.min()
    assert half[0] < 1e-4 < half[1]


def test_mask_term_is_the_mean_squared_opacity_error(scene):
    rgb, alpha = scene
    loss = FitLoss(LossConfig(lpips=0, ms_ssim=0), rgb, alpha)
    rendered = torch.full((4, 64, 64, 1), 0.25)
    terms = loss.terms(rgb, rendered, torch.arange(4))
    assert list(terms) == ["mask"]
    assert torch.allclose(terms["mask"], (alpha - 0.25).square().mean((1, 2)), rtol=1e-5)


def test_colour_terms_are_the_mean_squared_and_absolute_errors(scene):
    rgb, alpha = scene
    loss = FitLoss(LossConfig(lpips=0, ms_ssim=0, mask=0, rgb=1.0, rgb_l1=1.0), rgb, alpha)
    other = rgb.clone()
    other[2, ..., 1] += 0.3
    terms = loss.terms(other, alpha[..., None], torch.arange(4))
    assert torch.allclose(terms["rgb"], torch.tensor([0, 0, 0.03, 0]), atol=1e-6)
    assert torch.allclose(terms["rgb_l1"], torch.tensor([0, 0, 0.1, 0]), atol=1e-6)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [({"lpips": -1.0}, "lpips"), ({"mask": float("nan")}, "mask"), ({"lpips": 0, "ms_ssim": 0, "mask": 0}, "every")],
)
def test_bad_weights_are_refused_by_name(kwargs, message):
    with pytest.raises(ValueError, match=message):
        LossConfig(**kwargs)
