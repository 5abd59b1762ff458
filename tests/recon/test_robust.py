import numpy as np
import pytest
import torch

from recon.cameras import turntable
from recon.config import FitConfig, OrbitConfig
from recon.fit import fit
from recon.gaussians import render
from recon.loss_weights import LossConfig
from recon.robust import ROUNDS, ViewWeights, robust_weights

SIZE = 32


def test_views_alike_weigh_alike_and_an_outlier_next_to_nothing():
    even = robust_weights(torch.tensor([1.0, 1.05, 0.95, 1.02]), 3.0)
    assert torch.allclose(even, torch.ones(4), atol=0.05)
    odd = robust_weights(torch.tensor([1.0, 1.05, 0.95, 1.02, 5.0]), 2.0)
    assert odd.mean() == pytest.approx(1.0, abs=1e-6)
    assert odd[4] < 0.05
    assert odd[:4].min() > 1.0


def test_a_view_that_fits_better_than_the_median_is_not_punished():
    weights = robust_weights(torch.tensor([1.0, 1.0, 1.0, 0.01]), 1.0)
    assert torch.allclose(weights, torch.ones(4))


def test_nothing_is_mistrusted_before_every_view_was_seen_often_enough():
    weights = ViewWeights(3, 1.0, torch.device("cpu"))
    losses = torch.tensor([1.0, 1.0, 9.0])
    for _ in range(ROUNDS - 1):
        assert torch.equal(weights.of(torch.arange(3), losses), torch.ones(3))
    assert weights.of(torch.arange(3), losses)[2] < 0.1
    weights.reset()
    assert torch.equal(weights.of(torch.arange(3), losses), torch.ones(3))


def test_one_wrong_frame_smears_a_robust_fit_less():
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    inside = x**2 + y**2 < 81
    frames = np.full((8, SIZE, SIZE, 4), 255, np.uint8)
    frames[..., 3] = 0
    frames[:, inside] = (200, 30, 30, 255)
    wrong = frames.copy()
    wrong[3, inside] = (30, 30, 200, 255)
    cameras = turntable(0.3, SIZE, OrbitConfig(num_views=8))
    errors = []
    for robust in (0.0, 1.0):
        config = FitConfig(
            iterations=200, num_points=300, robust=robust, loss=LossConfig(lpips=0, ms_ssim=0, mask=1, rgb=3)
        )
        rgb, _ = render(fit(wrong, None, cameras, config).gaussians, cameras)
        error = (rgb - torch.from_numpy(frames[..., :3]).float() / 255).square().mean((1, 2, 3))
        errors.append(error[[2, 3, 4]].sum())
    assert errors[1] < 0.75 * errors[0]
