import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from recon.cameras import Cameras, OrbitConfig, turntable
from recon.config import DensifyConfig, FitConfig, LearningRates
from recon.fit import fit
from recon.fitter import Fitter
from recon.gaussians import render
from recon.loss_weights import LossConfig

SIZE = 48


def ball(cameras: Cameras, radius: float = 0.6) -> np.ndarray:
    """RGBA uint8 [C,S,S,4] of a ball whose colour is its normal, traced at two samples a pixel."""
    steps = (torch.arange(2 * cameras.size) + 0.5) / 2
    pixels = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1)
    frames = []
    for viewmat, K in zip(cameras.viewmats, cameras.Ks, strict=True):
        rays = torch.cat([(pixels - K[:2, 2]) / K[0, 0], torch.ones(*pixels.shape[:2], 1)], -1)
        rays = rays / rays.norm(dim=-1, keepdim=True) @ viewmat[:3, :3]
        eye = -viewmat[:3, :3].T @ viewmat[:3, 3]
        along = -(rays @ eye)
        root = along.square() - eye.square().sum() + radius**2
        hit = (root > 0).float()[..., None]
        normal = (eye + (along - root.clamp_min(0).sqrt())[..., None] * rays) / radius
        rgba = torch.cat([hit * (normal + 1) / 2 + 1 - hit, hit], -1)
        frames.append(torch.nn.functional.avg_pool2d(rgba.permute(2, 0, 1)[None], 2)[0].permute(1, 2, 0))
    return (torch.stack(frames).clamp(0, 1) * 255).round().byte().numpy()


def psnr_and_iou(gaussians, cameras: Cameras) -> tuple[float, float]:
    truth = torch.from_numpy(ball(cameras)).float() / 255
    rgb, alpha = render(gaussians, cameras)
    ours, theirs = alpha[..., 0] > 0.5, truth[..., 3] > 0.5
    error = (rgb.clamp(0, 1) - truth[..., :3]).square().mean()
    return float(-10 * error.log10()), float((ours & theirs).sum() / (ours | theirs).sum())


def quick(**kwargs) -> FitConfig:
    return FitConfig(**{"iterations": 40, "num_points": 300, **kwargs})


def error_to(frames: np.ndarray, fitter: Fitter) -> float:
    rgb, _ = render(fitter.gaussians, CAMERAS)
    return float((rgb - torch.from_numpy(frames[..., :3]).float() / 255).square().mean())


CAMERAS = turntable(0.3, SIZE)
FRAMES = ball(CAMERAS)


def test_a_ball_is_recovered_on_views_between_the_fitted_ones():
    result = fit(FRAMES, None, CAMERAS, FitConfig(iterations=200, num_points=800), seed=1)
    unseen = turntable(0.3, SIZE, OrbitConfig(num_views=8), start=np.pi / 16)
    psnr, iou = psnr_and_iou(result.gaussians, unseen)
    assert psnr > 21
    assert iou > 0.93
    terms = [record["losses"] for record in result.history]
    assert terms[-1]["lpips_pocket"] < 0.5 * terms[0]["lpips_pocket"]
    assert terms[-1]["mask"] < 0.5 * terms[0]["mask"]


def test_same_seed_same_gaussians_also_when_run_in_pieces():
    config = quick(iterations=20, densify=DensifyConfig(every=5))
    whole = fit(FRAMES, None, CAMERAS, config, seed=3).gaussians
    pieces = Fitter(CAMERAS, config, seed=3)
    pieces.set_targets(FRAMES)
    for count in (3, 10, 7):
        pieces.run(count)
    other = fit(FRAMES, None, CAMERAS, config, seed=4).gaussians
    assert torch.equal(whole.means, pieces.gaussians.means)
    assert torch.equal(whole.sh0, pieces.gaussians.sh0)
    assert whole.means.shape != other.means.shape or not torch.equal(whole.means, other.means)


def test_exchanged_targets_are_followed():
    fitter = Fitter(CAMERAS, quick(iterations=80, rates=LearningRates(sh0=0.1)))
    fitter.set_targets(FRAMES)
    fitter.run(40)
    grey = np.where(FRAMES[..., 3:] > 127, np.uint8(60), FRAMES)
    before = error_to(grey, fitter)
    assert error_to(FRAMES, fitter) < before
    fitter.set_targets(grey, FRAMES[..., 3])
    fitter.run(40)
    assert error_to(grey, fitter) < 0.8 * before


def test_number_of_gaussians_stays_under_the_cap_and_is_recorded():
    config = quick(densify=DensifyConfig(every=5, max_gaussians=400, grow_share=1.0))
    result = fit(FRAMES, None, CAMERAS, config)
    assert max(record["num_gaussians"] for record in result.history) <= 400
    assert result.history[-1]["num_gaussians"] == len(result.gaussians.means)
    assert [record["iteration"] for record in result.history] == list(range(5, 41, 5))
    assert sum(record["cloned"] + record["split"] for record in result.history) > 0


def test_coarse_start_and_several_views_reach_a_sane_result():
    config = quick(iterations=60, views=2, coarse_iterations=30, sh_degree=1)
    psnr, iou = psnr_and_iou(fit(FRAMES, None, CAMERAS, config).gaussians, CAMERAS)
    assert psnr > 15
    assert iou > 0.7


def test_one_view_is_enough_to_reproduce_that_view():
    camera = turntable(0.3, SIZE, OrbitConfig(num_views=1))
    psnr, iou = psnr_and_iou(fit(ball(camera), None, camera, quick(iterations=80)).gaussians, camera)
    assert psnr > 18
    assert iou > 0.8


@pytest.mark.parametrize("mask", ["full", "some empty"])
def test_odd_masks_give_finite_gaussians(mask):
    frames, masks = FRAMES[..., :3], FRAMES[..., 3].copy()
    masks[3 if mask == "some empty" else slice(None)] = 0 if mask == "some empty" else 255
    gaussians = fit(frames, masks, CAMERAS, quick(iterations=20)).gaussians
    assert all(torch.isfinite(getattr(gaussians, name)).all() for name in ("means", "scales", "opacities", "sh0"))


WHITE = np.full((16, SIZE, SIZE, 3), 255, np.uint8)


@pytest.mark.parametrize(
    ("frames", "masks", "message"),
    [
        (WHITE, np.zeros((16, SIZE, SIZE), np.uint8), "no mask holds an object"),
        (WHITE, None, "no alpha channel"),
        (WHITE[:, :40], None, "resize to square"),
        (WHITE[:3], None, r"\[3, 48, 48, 3\]"),
        (np.full(WHITE.shape, np.nan, np.float32), None, "float32"),
        (WHITE, np.zeros((16, SIZE, SIZE)), "masks are float64"),
        (WHITE[0], None, r"uint8 \[16,48,48,3\|4\]"),
    ],
)
def test_unusable_targets_are_refused_with_a_reason(frames, masks, message):
    with pytest.raises(ValueError, match=message):
        Fitter(CAMERAS, quick()).set_targets(frames, masks)


def test_tiny_frames_are_refused_and_small_ones_fitted():
    tiny = turntable(0.3, 8)
    with pytest.raises(ValueError, match="at least 16"):
        Fitter(tiny, quick()).set_targets(ball(tiny))
    small = turntable(0.3, 16)
    assert psnr_and_iou(fit(ball(small), None, small, quick()).gaussians, small)[1] > 0.5


def test_running_without_targets_is_refused():
    with pytest.raises(ValueError, match="set_targets"):
        Fitter(CAMERAS, quick()).run(1)


def test_a_parameter_that_is_not_finite_stops_the_fit():
    fitter = Fitter(CAMERAS, quick())
    fitter.set_targets(FRAMES)
    with torch.no_grad():
        fitter.params["sh0"][0] = float("nan")
    with pytest.raises((FloatingPointError, ValueError), match=r"finite|NaN|nan"):
        fitter.run(1)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"iterations": 0}, "iterations"), ({"sh_degree": 4}, "0..3"), ({"views": 0}, "views"),
        ({"init_radius": float("nan")}, "init_radius is nan"), ({"init_radius": 2.0}, "init_radius is 2.0"),
        ({"robust": float("inf")}, "robust is inf"),
    ],
)  # fmt: skip
def test_bad_settings_are_refused_by_name(kwargs, message):
    with pytest.raises(ValueError, match=message):
        FitConfig(**kwargs)


def test_terms_with_weight_zero_are_left_out_of_the_history():
    config = quick(iterations=10, loss=LossConfig(lpips=0, rgb=1.0))
    assert set(fit(FRAMES, None, CAMERAS, config).history[-1]["losses"]) == {"ms_ssim", "mask", "rgb"}


class CountTransfers(TorchDispatchMode):
    """Counts what makes a GPU finish its work before Python goes on: `item()`, `float(x)`, `bool(x)`, `nonzero`."""

    WAITING = ("_local_scalar_dense", "nonzero", "is_nonzero")

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function.overloadpacket.__name__ in self.WAITING
        return function(*args, **(kwargs or {}))


def test_only_the_first_step_of_a_densification_period_waits_for_the_device():
    fitter = Fitter(CAMERAS, quick(iterations=100, densify=DensifyConfig(every=10)))
    fitter.set_targets(FRAMES)
    waits = []
    for _ in range(13):
        with CountTransfers() as transfers:
            fitter._step()
        waits.append(transfers.count)
    assert waits[:9] == [1] + [0] * 8  # the tenth step densifies, and must know which Gaussians
    assert waits[10:] == [1, 0, 0]


def test_a_parameter_that_is_not_finite_is_found_within_a_period():
    fitter = Fitter(CAMERAS, quick(densify=DensifyConfig(every=5)))
    fitter.set_targets(FRAMES)
    fitter.run(2)
    with torch.no_grad():
        fitter.params["sh0"][0] = float("nan")
    with pytest.raises(FloatingPointError, match=r"sh0 .* not finite after 5 iterations; nothing was written"):
        fitter.run(10)
