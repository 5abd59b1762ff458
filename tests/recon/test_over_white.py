import numpy as np
import pytest
import torch

from recon.cameras import OrbitConfig, turntable
from recon.config import DensifyConfig, FitConfig
from recon.fit import fit
from recon.gaussians import Gaussians, render
from recon.over_white import over_white
from recon.refine import LoopConfig, RefineConfig, Turntable, reconstruct

SIZE, VIEWS, RADIUS, ELEVATION = 48, 8, 0.6, 0.3
CAMERAS = turntable(ELEVATION, SIZE, OrbitConfig(num_views=VIEWS))


def bodies(cameras=CAMERAS, samples: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Colours in [0,255] (extended beyond the outline) float32 [V,S,S,3] and coverage uint8 [V,S,S] of a ball."""
    steps = (torch.arange(samples * cameras.size) + 0.5) / samples
    pixels = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1)
    colours, coverage = [], []
    for viewmat, K in zip(cameras.viewmats, cameras.Ks, strict=True):
        rays = torch.cat([(pixels - K[:2, 2]) / K[0, 0], torch.ones(*pixels.shape[:2], 1)], -1)
        rays = rays / rays.norm(dim=-1, keepdim=True) @ viewmat[:3, :3]
        eye = -viewmat[:3, :3].T @ viewmat[:3, 3]
        along = -(rays @ eye)
        root = along.square() - eye.square().sum() + RADIUS**2
        normal = (eye + (along - root.clamp_min(0).sqrt())[..., None] * rays) / RADIUS
        both = torch.cat([0.15 + 0.35 * (normal.clamp(-1, 1) + 1) / 2, (root > 0).float()[..., None]], -1)
        mean = torch.nn.functional.avg_pool2d(both.permute(2, 0, 1)[None], samples)[0].permute(1, 2, 0)
        colours.append(255 * mean[..., :3])
        coverage.append((255 * mean[..., 3]).round().byte())
    return torch.stack(colours).numpy(), torch.stack(coverage).numpy()


def on(background: np.ndarray, colours: np.ndarray, coverage: np.ndarray) -> np.ndarray:
    """The object before a background [S,S,3] or a grey: uint8 RGB, opaque."""
    alpha = coverage[..., None].astype(np.float32) / 255
    return np.rint(alpha * colours + (1 - alpha) * background).astype(np.uint8)


def photo(size: int = SIZE) -> np.ndarray:
    """Cloudy colours with grain float32 [S,S,3], as of a room out of focus."""
    random = np.random.default_rng(3)
    coarse = torch.from_numpy(random.uniform(0, 255, (1, 3, 6, 6)).astype(np.float32))
    smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic")[0].permute(1, 2, 0).numpy()
    return (smooth + random.normal(0, 8, smooth.shape)).clip(0, 255)


GREY = np.full((SIZE, SIZE, 3), 128.0)
GRADIENT = np.linspace(20, 230, SIZE)[:, None, None] * np.array([1.0, 0.8, 0.6])
BACKGROUNDS = {"grey": GREY, "gradient": np.broadcast_to(GRADIENT, (SIZE, SIZE, 3)), "photo": photo()}
COLOURS, COVERAGE = bodies()
ON_WHITE = on(np.full(3, 255.0), COLOURS, COVERAGE)
CONFIG = FitConfig(iterations=100, num_points=500, densify=DensifyConfig(max_gaussians=1000))


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.square((a.astype(np.float64) - b) / 255).mean() + 1e-12))


def visible_outside(gaussians: Gaussians) -> int:
    """How many Gaussians that can be seen lie clearly outside of the ball; frames left as they are give some."""
    return int(((gaussians.means.norm(dim=1) > 1.2 * RADIUS) & (gaussians.alphas > 0.05)).sum())


def quality(gaussians: Gaussians) -> float:
    """PSNR in dB to the true views on white."""
    rgb, _ = render(gaussians, CAMERAS)
    return psnr(255 * rgb.clamp(0, 1).numpy(), ON_WHITE)


@pytest.fixture(scope="module")
def fitted_on_white() -> float:
    return quality(fit(ON_WHITE, COVERAGE, CAMERAS, CONFIG, seed=2).gaussians)


@pytest.mark.parametrize("name", BACKGROUNDS)
def test_a_fit_of_opaque_frames_keeps_the_background_out(name, fitted_on_white):
    frames = on(BACKGROUNDS[name], COLOURS, COVERAGE)
    gaussians = fit(frames, COVERAGE, CAMERAS, CONFIG, seed=2).gaussians
    assert quality(gaussians) > fitted_on_white - 0.3
    assert visible_outside(gaussians) == 0


def test_the_first_frames_and_those_of_every_round_are_put_on_white(fitted_on_white):
    """A refiner of opaque frames, as a real video model, returns the object before a background of its own."""
    seen = []

    class Model:
        def refine(self, frames, image, prompt, seed):
            seen.append((frames, image))
            return on(BACKGROUNDS["photo"], COLOURS, COVERAGE)

    given = Turntable(frames=on(GREY, COLOURS, COVERAGE), masks=COVERAGE, elevation=ELEVATION)
    config = LoopConfig(fit=CONFIG, refine=RefineConfig(rounds_at=(40, 70)))
    gaussians, history = reconstruct(given, config, Model(), lambda frames: COVERAGE, seed=2)
    assert quality(gaussians) > fitted_on_white - 0.3
    assert visible_outside(gaussians) == 0
    assert all((part["targets"][COVERAGE == 0] == 255).all() for part in history if part["stage"] == "refine")
    assert all((image[COVERAGE[0] == 0] == 255).all() for _, image in seen)


@pytest.mark.parametrize("name", BACKGROUNDS)
def test_edges_lose_the_background_and_nothing_is_left_of_it_outside(name):
    frames = on(BACKGROUNDS[name], COLOURS, COVERAGE)
    white = over_white(frames, COVERAGE)
    assert (white[COVERAGE == 0] == 255).all()
    assert np.array_equal(white[COVERAGE == 255], frames[COVERAGE == 255])
    edge = (COVERAGE > 0) & (COVERAGE < 255)
    alpha = COVERAGE[..., None] / 255
    blended = np.rint(alpha * frames + 255 * (1 - alpha))
    assert psnr(white[edge], ON_WHITE[edge]) > psnr(blended[edge], ON_WHITE[edge]) + 1.5


def test_what_is_on_white_stays_as_it_is():
    assert np.abs(over_white(ON_WHITE, COVERAGE).astype(int) - ON_WHITE).max() <= 1
    once = over_white(on(GREY, COLOURS, COVERAGE), COVERAGE)
    assert np.abs(over_white(once, COVERAGE).astype(int) - once).max() <= 1


def test_rgba_frames_are_never_changed():
    random = np.random.default_rng(0).integers(0, 256, (3, 5, 7, 4)).astype(np.uint8)
    assert over_white(random, random[..., 0]) is random


def test_faint_coverage_of_a_masker_is_faint_afterwards():
    frames, masks = on(BACKGROUNDS["photo"], COLOURS, COVERAGE), np.maximum(COVERAGE, 3)
    assert over_white(frames, masks)[COVERAGE == 0].min() >= 252


@pytest.mark.parametrize(("alpha", "wanted"), [(0, 255), (255, 60)])
def test_all_or_nothing_covered(alpha, wanted):
    frame = np.full((9, 9, 3), 60, np.uint8)
    assert (over_white(frame, np.full((9, 9), alpha, np.uint8)) == wanted).all()


@pytest.mark.parametrize(
    ("frames", "masks", "message"),
    [
        (ON_WHITE.astype(np.float32), COVERAGE, "frames are float32"),
        (ON_WHITE, COVERAGE[:3], r"masks are uint8 \[3, 48, 48\]"),
        (ON_WHITE, COVERAGE > 127, "masks are bool"),
    ],
)
def test_pairs_that_do_not_belong_together_are_refused(frames, masks, message):
    with pytest.raises(ValueError, match=message):
        over_white(frames, masks)
