import pytest
import torch

from recon.ms_ssim import SsimTarget, ms_ssim
from recon.ssim_loss import SsimLoss


def pictures(height: int, width: int, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Targets [3,H,W,3] and renders [2,H,W,3] of the last two."""
    generator = torch.Generator().manual_seed(width)
    targets = torch.rand(3, height, width, 3, generator=generator)
    renders = targets[1:] + noise * torch.randn(2, height, width, 3, generator=generator)
    return targets, renders.clamp(0, 1)


@pytest.mark.parametrize("size", [(16, 16), (48, 32), (64, 128), (176, 192)])
@pytest.mark.parametrize("noise", [0.05, 1.0])
def test_values_and_gradients_are_those_of_torch(size, noise):
    targets, renders = pictures(*size, noise)
    kept = SsimTarget.of(targets.permute(0, 3, 1, 2).contiguous())
    factors, views = torch.tensor([1.0, 3.0]), [1, 2]
    ours, theirs = renders.clone().requires_grad_(), renders.clone().requires_grad_()
    found = SsimLoss(kept)(ours, views)
    wanted = ms_ssim(theirs.permute(0, 3, 1, 2), kept, torch.tensor(views))
    (found * factors).sum().backward()
    (wanted * factors).sum().backward()
    assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-6)
    assert (ours.grad - theirs.grad).norm() < 1e-3 * theirs.grad.norm()


def test_a_picture_is_like_itself():
    targets, _ = pictures(32, 32, 0.0)
    loss = SsimLoss(SsimTarget.of(targets.permute(0, 3, 1, 2).contiguous()))
    assert torch.allclose(loss(targets, [0, 1, 2]), torch.ones(3), atol=1e-6)
    assert loss(targets[:1], [1]) < 0.5


def test_sides_that_do_not_halve_evenly_are_left_to_torch():
    assert SsimLoss.takes(128, 48)
    assert SsimLoss.takes(13, 13)  # a single scale
    assert not SsimLoss.takes(50, 64)
    assert not SsimLoss.takes(10, 64)
