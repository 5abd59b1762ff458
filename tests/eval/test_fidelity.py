"""Measures against a truth: closed forms, and the packages that define them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pytorch_msssim import ms_ssim as package_ms_ssim
from skimage.metrics import peak_signal_noise_ratio

from eval.fidelity import depth_error, lpips, mask_iou, ms_ssim, picture_fidelity, psnr, ssim, surface_distances
from recon.ms_ssim import SsimTarget
from recon.ms_ssim import ms_ssim as losses_ms_ssim
from recon.perceptual import load_perceptual


def pictures(seed: int, size: int = 128, count: int = 2) -> np.ndarray:
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (count, 16, 16, 4), dtype=np.uint8)
    return coarse.repeat(size // 16, 1).repeat(size // 16, 2)


def test_psnr_is_the_closed_form_and_bounded() -> None:
    black = np.zeros((2, 8, 8, 3), np.uint8)
    off = black.copy()
    off[1] = 51
    assert psnr(off, black).tolist() == [100.0, pytest.approx(20 * np.log10(5))]
    a, b = pictures(1)[..., :3], pictures(2)[..., :3]
    assert psnr(a, b) == pytest.approx([peak_signal_noise_ratio(x, y) for x, y in zip(b, a, strict=True)])


def test_ssim_of_flat_pictures_is_the_luminance_term() -> None:
    a, b = np.full((1, 32, 32, 3), 100, np.uint8), np.full((1, 32, 32, 3), 150, np.uint8)
    c1 = (0.01 * 255) ** 2
    assert ssim(a, b) == pytest.approx([(2 * 100 * 150 + c1) / (100**2 + 150**2 + c1)])
    assert ssim(pictures(1)[..., :3], pictures(1)[..., :3]) == pytest.approx([1, 1])


@pytest.mark.parametrize("size", [128, 192])
def test_ms_ssim_is_the_packages(size: int) -> None:
    a, b = pictures(1, size)[..., :3], (pictures(1, size)[..., :3] // 2 + pictures(2, size)[..., :3] // 2)
    x, y = (torch.from_numpy(part).permute(0, 3, 1, 2).double() for part in (a, b))
    window = 11 if size > 160 else 7
    expected = package_ms_ssim(x, y, data_range=255, size_average=False, win_size=window)
    assert ms_ssim(a, b) == pytest.approx(expected.numpy(), abs=1e-4)
    if size > 160:
        own = losses_ms_ssim(x.float() / 255, SsimTarget.of(y.float() / 255), torch.arange(2))
        assert ms_ssim(a, b) == pytest.approx(own.numpy(), abs=1e-4)
    with pytest.raises(ValueError, match="96 pixels are too small"):
        ms_ssim(a[:, :96, :96], b[:, :96, :96])


def test_lpips_grows_with_the_change() -> None:
    network = load_perceptual("pocket")
    a, noise = pictures(1)[..., :3].astype(float), np.random.default_rng(3).normal(0, 1, (2, 128, 128, 3))
    seen = [
        lpips((a + k * noise).clip(0, 255).astype(np.uint8), a.astype(np.uint8), network).mean() for k in (0, 5, 40)
    ]
    assert seen[0] == pytest.approx(0, abs=1e-6)
    assert seen[0] < seen[1] < seen[2]


def test_masks_overlap_by_area() -> None:
    left, half = np.zeros((3, 8, 8), np.uint8), np.zeros((3, 8, 8), np.uint8)
    left[0, :, :4] = half[0, :, 2:6] = 255
    left[1] = 255
    assert mask_iou(left, half).tolist() == [pytest.approx(1 / 3), 0.0, 1.0]


def test_depth_counts_where_both_have_it() -> None:
    ours, truth = np.zeros((1, 2, 2), np.float32), np.zeros((1, 2, 2), np.float32)
    assert depth_error(ours, truth) is None
    ours[0] = [[2.0, 3.0], [0, 5.0]]
    truth[0] = [[2.5, 3.0], [4.0, 0]]
    assert depth_error(ours, truth) == pytest.approx(0.25)


def test_spheres_are_apart_by_their_radii() -> None:
    points = np.random.default_rng(0).normal(size=(4000, 3))
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    same = surface_distances(unit, unit)
    assert same == {"chamfer": 0.0, "f_score": 1.0}
    apart = surface_distances(0.7 * unit, unit)
    assert apart["chamfer"] == pytest.approx(0.3, abs=0.01)
    assert apart["f_score"] == 0
    half = np.concatenate([unit, unit + np.array([10, 0, 0])])
    assert surface_distances(half, unit)["f_score"] == pytest.approx(2 * 0.5 * 1 / 1.5)
    with pytest.raises(ValueError, match="0 and 4000 points"):
        surface_distances(unit[:0], unit)


def test_small_views_have_no_ms_ssim() -> None:
    network = load_perceptual("pocket")
    found = picture_fidelity(pictures(1, 32), pictures(1, 32), network)
    assert found["ms_ssim"] is None
    assert found["psnr"] == 100
    assert found["mask_iou"] == 1
    assert picture_fidelity(pictures(1), pictures(1), network)["ms_ssim"] == pytest.approx(1)
