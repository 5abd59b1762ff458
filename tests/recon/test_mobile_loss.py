import pytest
import torch
from torch import nn

from recon.loss_weights import LossConfig
from recon.losses import FitLoss
from recon.mobile_loss import MobileLoss
from recon.perceptual import LpipsNetwork, MobileTrunk, load_perceptual


def pictures(count: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Targets and noisy renders [count,H,W,3]."""
    generator = torch.Generator().manual_seed(height)
    targets = torch.rand(count, height, width, 3, generator=generator)
    renders = (targets + 0.1 * torch.randn(targets.shape, generator=generator)).clamp(0, 1)
    return targets, renders


def network(**changes) -> MobileTrunk:
    """A small random trunk."""
    torch.manual_seed(3)
    config = {"mean": 0.4, "std": 0.5, "stem": 8, "blocks": [(8, 8, 8, 5, 1), (8, 16, 24, 3, 2), (16, 16, 32, 5, 1)],
              "taps": [1, 3], "weights": [0.5, 2.0]} | changes  # fmt: skip
    return MobileTrunk(config).eval().requires_grad_(False)


@pytest.mark.parametrize("size", [(32, 32), (48, 80), (17, 30)])
@pytest.mark.parametrize("kind", ["pocket", "small", "unstrided stem tap"])
def test_values_and_gradients_are_those_of_torch(size, kind):
    trunk = load_perceptual() if kind == "pocket" else network(**({"taps": [0, 2]} if kind != "small" else {}))
    targets, renders = pictures(2, *size)
    factors, loss = torch.tensor([1.0, 3.0]), MobileLoss(trunk)
    ours = renders.clone().requires_grad_()
    found = loss.distance(ours, loss.features(targets))
    (found * factors).sum().backward()
    theirs = renders.clone().requires_grad_()
    features = [trunk.features(images.permute(0, 3, 1, 2)) for images in (theirs, targets)]
    wanted = trunk.distance(*features)
    (wanted * factors).sum().backward()
    assert torch.allclose(found, wanted, rtol=1e-4)
    assert (ours.grad - theirs.grad).norm() < 1e-4 * theirs.grad.norm()


def test_without_gradients_the_value_is_the_same():
    targets, renders = pictures(1, 32, 32)
    loss = MobileLoss(network())
    units = loss.features(targets)
    assert torch.equal(loss.distance(renders, units), loss.distance(renders.requires_grad_(), units).detach())


def test_only_trunks_of_whole_vectors_are_taken():
    assert MobileLoss.takes(load_perceptual())
    assert not MobileLoss.takes(network(stem=12, blocks=[(12, 8, 12, 3, 1)], taps=[0], weights=[1.0]))
    assert not MobileLoss.takes(nn.Identity())


def test_the_fits_loss_takes_it_and_can_do_without():
    targets, renders = pictures(2, 32, 32)
    alpha, views = torch.ones(2, 32, 32), torch.tensor([1, 0])
    found = {}
    for fast in (True, False):
        loss = FitLoss(LossConfig(fast=fast), targets, alpha)
        assert (loss.features == []) == fast
        values = renders.clone().requires_grad_()
        terms = loss.terms(values, alpha[..., None], views)
        loss.total(terms).sum().backward()
        found[fast] = terms, values.grad
    for name, value in found[True][0].items():
        assert torch.allclose(value, found[False][0][name], rtol=1e-4), name
    assert (found[True][1] - found[False][1]).norm() < 1e-4 * found[False][1].norm()


def test_bfloat16_is_taken_where_the_processor_multiplies_it(monkeypatch):
    targets, renders = pictures(1, 64, 64)
    values = {}
    for able in (False, True):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: {"amx_bf16": able})
        torch.manual_seed(0)
        metric = LpipsNetwork("squeeze").eval().requires_grad_(False)
        metric.use_matrix_units()
        assert metric.dtype == (torch.bfloat16 if able else torch.float32)
        images = [one.permute(0, 3, 1, 2) for one in (renders.clone().requires_grad_(), targets)]
        distance = metric.distance(*(metric.features(one) for one in images))
        assert distance.dtype == torch.float32
        values[able] = distance.item()
    assert values[True] == pytest.approx(values[False], rel=0.05)
    assert values[True] != values[False]
