import pytest
import pytorch_msssim
import torch

from recon.ms_ssim import MATRIX_LIMIT, SCALE_WEIGHTS, SsimTarget, ms_ssim, scale_weights


def pair(height: int, width: int, count: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(height)
    coarse = torch.rand(count, 3, 6, 6, generator=generator)
    target = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    return (target + 0.1 * torch.randn(target.shape, generator=generator)).clamp(0, 1), target


@pytest.mark.parametrize("size", [(176, 176), (181, 200), (256, 170)])
def test_value_and_gradient_equal_pytorch_msssim(size):
    images, target = pair(*size)
    ours, theirs = images.clone().requires_grad_(), images.clone().requires_grad_()
    value = ms_ssim(ours, SsimTarget.of(target), torch.arange(2))
    wanted = pytorch_msssim.ms_ssim(theirs, target, data_range=1.0, size_average=False)
    assert torch.allclose(value, wanted, atol=2e-6)
    value.sum().backward()
    wanted.sum().backward()
    assert torch.allclose(ours.grad, theirs.grad, rtol=1e-3, atol=1e-8)


def test_fewer_scales_equal_pytorch_msssim_with_those_weights(monkeypatch):
    images, target = pair(176, 176)
    weights = scale_weights(64)
    assert len(weights) == 3
    monkeypatch.setattr("recon.ms_ssim.scale_weights", lambda side: weights)
    value = ms_ssim(images, SsimTarget.of(target), torch.arange(2))
    wanted = pytorch_msssim.ms_ssim(images, target, data_range=1.0, size_average=False, weights=list(weights))
    assert torch.allclose(value, wanted, atol=2e-6)


def test_large_images_go_through_the_package_with_the_same_value():
    images, target = pair(MATRIX_LIMIT + 8, MATRIX_LIMIT + 8)
    wanted = pytorch_msssim.ms_ssim(images, target, data_range=1.0, size_average=False)
    assert torch.allclose(ms_ssim(images, SsimTarget.of(target), torch.arange(2)), wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("side", "count"), [(1, 1), (11, 1), (20, 1), (21, 2), (22, 2), (64, 3), (128, 4), (176, 5), (512, 5)]
)
def test_scales_fit_the_side_and_weights_sum_to_one(side, count):
    weights = scale_weights(side)
    assert len(weights) == count
    assert sum(weights) == pytest.approx(1, abs=2e-4)
    assert weights[0] / weights[-1] == pytest.approx(SCALE_WEIGHTS[0] / SCALE_WEIGHTS[count - 1])


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (7, 7), (10, 40), (33, 12), (128, 128)])
def test_identical_images_score_one_at_every_size(size):
    _, target = pair(*size)
    assert torch.allclose(ms_ssim(target, SsimTarget.of(target), torch.arange(2)), torch.ones(2), atol=1e-5)


def test_views_select_their_targets():
    images, target = pair(48, 48, count=3)
    moments = SsimTarget.of(target)
    together = ms_ssim(images, moments, torch.arange(3))
    picked = ms_ssim(images[[2, 0]], moments, torch.tensor([2, 0]))
    assert torch.allclose(picked, together[[2, 0]], atol=1e-6)
    assert (ms_ssim(images[[2]], moments, torch.tensor([0])) < together[2]).all()


def test_opposite_images_give_a_finite_gradient():
    _, target = pair(64, 64, count=1)
    images = (1 - target).requires_grad_()
    value = ms_ssim(images, SsimTarget.of(target), torch.tensor([0]))
    value.sum().backward()
    assert 0 <= value.item() < 0.3
    assert torch.isfinite(images.grad).all()
