import pytest
import torch

from recon.losses import FitLoss, LossConfig


@pytest.fixture(scope="module")
def scene():
    generator = torch.Generator().manual_seed(3)
    rgb = torch.nn.functional.interpolate(torch.rand(4, 3, 8, 8, generator=generator), size=64, mode="bilinear")
    return rgb.permute(0, 2, 3, 1).contiguous(), torch.rand(4, 64, 64, generator=generator)


def test_perfect_renders_cost_nothing(scene):
    rgb, alpha = scene
    loss = FitLoss(LossConfig(rgb=1.0), rgb, alpha)
    terms = loss.terms(rgb, alpha[..., None], torch.arange(4))
    assert list(terms) == ["lpips", "ms_ssim", "mask", "rgb"]
    assert all(abs(value.item()) < 1e-5 for value in terms.values()), terms


def test_total_is_the_weighted_sum_of_the_paper(scene):
    rgb, alpha = scene
    loss = FitLoss(LossConfig(), rgb, alpha)
    terms = loss.terms(rgb.roll(3, 1), alpha[..., None].flip(1), torch.arange(4))
    wanted = 10 * terms["lpips"] + 0.2 * terms["ms_ssim"] + 1 * terms["mask"]
    assert loss.total(terms).item() == pytest.approx(wanted.item(), rel=1e-6)
    assert min(value.item() for value in terms.values()) > 0


def test_terms_follow_the_chosen_views(scene):
    rgb, alpha = scene
    loss = FitLoss(LossConfig(), rgb, alpha)
    right = loss.total(loss.terms(rgb[[3, 1]], alpha[[3, 1]][..., None], torch.tensor([3, 1])))
    wrong = loss.total(loss.terms(rgb[[3, 1]], alpha[[3, 1]][..., None], torch.tensor([1, 3])))
    assert right < 1e-4 < wrong


def test_mask_term_is_the_mean_squared_opacity_error(scene):
    rgb, alpha = scene
    loss = FitLoss(LossConfig(lpips=0, ms_ssim=0), rgb, alpha)
    rendered = torch.full((4, 64, 64, 1), 0.25)
    terms = loss.terms(rgb, rendered, torch.arange(4))
    assert list(terms) == ["mask"]
    assert terms["mask"].item() == pytest.approx((alpha - 0.25).square().mean().item(), rel=1e-5)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [({"lpips": -1.0}, "lpips"), ({"mask": float("nan")}, "mask"), ({"lpips": 0, "ms_ssim": 0, "mask": 0}, "every")],
)
def test_bad_weights_are_refused_by_name(kwargs, message):
    with pytest.raises(ValueError, match=message):
        LossConfig(**kwargs)
