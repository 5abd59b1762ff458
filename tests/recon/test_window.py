import numpy as np
import pytest
import torch

from recon.cameras import OrbitConfig, turntable
from recon.config import DensifyConfig, FitConfig
from recon.fitter import Fitter
from recon.gaussians import init_ball
from recon.losses import FitLoss, LossConfig
from recon.rasterize import rasterize
from recon.window import LEAST, MARGIN, STEP, whole, window_of


def masks(size: int, *boxes: tuple[int, int, int, int]) -> torch.Tensor:
    """Masks [V,S,S] that cover (top, bottom, left, right)."""
    found = torch.zeros(len(boxes), size, size)
    for mask, (top, bottom, left, right) in zip(found, boxes, strict=True):
        mask[top:bottom, left:right] = 0.3
    return found


def test_it_holds_what_any_view_covers_and_the_margin():
    window = window_of(masks(128, (40, 60, 50, 70), (44, 90, 60, 64)))
    assert window.left <= 50 - MARGIN
    assert window.left + window.width >= 70 + MARGIN
    assert window.top <= 40 - MARGIN
    assert window.top + window.height >= 90 + MARGIN
    assert window.width % STEP == window.height % STEP == 0
    assert window.left % 2 == window.top % 2 == 0
    assert window.share == window.width * window.height / 128**2 < 0.4


@pytest.mark.parametrize(("box", "wanted"), [((0, 128, 0, 128), 128), ((0, 3, 0, 3), LEAST), ((50, 128, 50, 128), 96)])
def test_it_stays_within_the_frame(box, wanted):
    window = window_of(masks(128, box))
    assert window.width == window.height == wanted
    assert 0 <= window.left <= 128 - window.width


def test_an_odd_frame_is_taken_whole_where_nothing_is_saved():
    assert window_of(masks(30, (10, 20, 10, 20))) == whole(30)


def test_its_cameras_see_its_pixels():
    cameras = turntable(0.2, 128, OrbitConfig(num_views=2))
    window = window_of(masks(128, (40, 60, 48, 68)))
    g = init_ball(60, radius=0.3, opacity=0.5, generator=torch.Generator().manual_seed(0))
    scene = (g.means, g.quats, g.standard_deviations, g.alphas, g.base_colours, cameras.viewmats)
    all_of_it = rasterize(*scene, cameras.Ks, 128, 128)[0]
    assert window.width < 128
    part = rasterize(*scene, window.intrinsics(cameras.Ks), window.width, window.height)[0]
    assert torch.allclose(part, window.crop(all_of_it), atol=1e-5)


def test_terms_are_means_over_whole_frames():
    random = np.random.default_rng(0)
    rgb, alpha = torch.ones(1, 64, 64, 3), torch.zeros(1, 64, 64)
    rgb[:, 24:40, 24:40] = torch.from_numpy(random.random((16, 16, 3), np.float32))
    alpha[:, 24:40, 24:40] = 1
    seen, cover = torch.ones(1, 64, 64, 3), alpha[..., None] * 0.7
    seen[:, 24:40, 24:40] = 0.5
    window, config = window_of(alpha), LossConfig(lpips=0, ms_ssim=0, mask=1, rgb=1, rgb_l1=1)
    views = torch.tensor([0])
    wanted = FitLoss(config, rgb, alpha).terms(seen, cover, views)
    inside = FitLoss(config, window.crop(rgb), window.crop(alpha), share=window.share)
    found = inside.terms(window.crop(seen), window.crop(cover), views)
    for name, value in wanted.items():
        assert torch.allclose(found[name], value, rtol=1e-5), name


def test_a_fit_renders_the_window_and_reaches_the_same():
    size, cameras = 128, turntable(0.3, 128, OrbitConfig(num_views=4))
    frames = np.full((4, size, size, 4), 255, np.uint8)
    frames[..., 3] = 0
    frames[:, 48:80, 56:72] = (200, 30, 30, 255)
    losses = {}
    for window in (False, True):
        config = FitConfig(iterations=60, num_points=300, init="hull", window=window, densify=DensifyConfig(every=20))
        fitter = Fitter(cameras, config)
        fitter.set_targets(frames)
        fitter.run(60)
        losses[window] = fitter.history[-1]["losses"]
        assert fitter.options(1)["width"] == (LEAST if window else size)
    assert losses[True]["mask"] == pytest.approx(losses[False]["mask"], rel=0.3)
    assert losses[True]["lpips_pocket"] == pytest.approx(losses[False]["lpips_pocket"], rel=0.3)
