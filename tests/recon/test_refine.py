import numpy as np
import pytest
import torch

from recon.cameras import turntable
from recon.config import FitConfig, LearningRates, RefineConfig
from recon.gaussians import render
from recon.refine import LoopConfig, Turntable, mixed_targets, reconstruct

SIZE, VIEWS, ELEVATION = 32, 16, 0.3
FIT = FitConfig(iterations=60, num_points=400, rates=LearningRates(sh0=0.1))


def disc(colour: tuple[int, int, int]) -> np.ndarray:
    """RGBA uint8 [16,S,S,4] of a ball of one colour, which is a disc from everywhere."""
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    frames = np.full((VIEWS, SIZE, SIZE, 4), 255, np.uint8)
    frames[..., 3] = 0
    frames[:, x**2 + y**2 < 81] = (*colour, 255)
    return frames


def loop(*rounds_at: int, mix: float = 1.0, fit: FitConfig = FIT) -> LoopConfig:
    return LoopConfig(fit=fit, refine=RefineConfig(rounds_at=rounds_at, mix=mix))


class Painter:
    """A refiner that knows the right answer, and remembers how it was called."""

    def __init__(self, answer: np.ndarray):
        self.answer, self.calls = answer, []

    def refine(self, frames, image, prompt, seed):
        self.calls.append((frames, image, prompt, seed))
        return self.answer


def centre_colour(gaussians) -> list[float]:
    rgb, _ = render(gaussians, turntable(ELEVATION, SIZE))
    middle = slice(SIZE // 2 - 3, SIZE // 2 + 3)
    return (255 * rgb[:, middle, middle].mean((0, 1, 2))).tolist()


def test_refined_targets_replace_the_first_ones():
    dark, light = disc((60, 60, 60)), disc((190, 190, 190))
    given = Turntable(frames=dark, elevation=ELEVATION, image=dark[0], prompt="a ball")
    first, _ = reconstruct(given, loop())
    gaussians, history = reconstruct(given, loop(20), Painter(light), seed=7)
    assert np.mean(centre_colour(gaussians)) > np.mean(centre_colour(first)) + 30
    assert [(part["stage"], part["iteration"]) for part in history] == [("fit", 20), ("refine", 20), ("fit", 60)]
    assert np.array_equal(history[1]["targets"], light)
    assert all(part["seconds"] >= 0 for part in history)
    assert set(history[0]["losses"]) == {"lpips_pocket", "ms_ssim", "mask"}


def test_refiner_is_given_renders_of_the_fit_and_its_own_seed():
    red = disc((200, 30, 30))
    refiner = Painter(red)
    given = Turntable(frames=red, elevation=ELEVATION, image=red[3], prompt="a ball")
    reconstruct(given, loop(30, 50), refiner, seed=7)
    assert [call[3] for call in refiner.calls] == [8, 9]
    frames, image, prompt, _ = refiner.calls[1]
    assert frames.shape == red.shape
    assert frames.dtype == np.uint8
    error = np.abs(frames.astype(int) - red)[..., :3].mean()
    assert error < 0.5 * np.abs(255 - red.astype(int))[..., :3].mean()
    assert np.array_equal(image, red[3])
    assert prompt == "a ball"


def test_masks_of_refined_rgb_frames_are_recomputed():
    red = disc((200, 30, 30))
    small = disc((200, 30, 30))
    small[:, :14] = (255, 255, 255, 0)
    seen = []

    def masker(frames):
        seen.append(frames)
        return np.where(frames.min(-1) < 128, 255, 0).astype(np.uint8)

    refiner = Painter(small[..., :3])
    given = Turntable(frames=red[..., :3], masks=red[..., 3], elevation=ELEVATION)
    gaussians, _ = reconstruct(given, loop(20), refiner, masker)
    assert len(seen) == 1
    _, alpha = render(gaussians, turntable(ELEVATION, SIZE))
    assert alpha[:, :9].mean() < 0.5 * alpha[:, 18:24].mean()


@pytest.mark.parametrize("rounds", [(), (60,), (500, 1000)])
def test_no_round_is_one_plain_fit(rounds):
    red = disc((200, 30, 30))
    refiner = Painter(red)
    config = FitConfig(iterations=10, num_points=100)
    gaussians, history = reconstruct(Turntable(frames=red, elevation=ELEVATION), loop(*rounds, fit=config), refiner)
    assert refiner.calls == []
    assert [part["stage"] for part in history] == ["fit"]
    assert torch.isfinite(gaussians.means).all()


def test_a_refiner_that_changes_the_shape_is_refused():
    red = disc((200, 30, 30))
    with pytest.raises(ValueError, match="keep the shape"):
        reconstruct(Turntable(frames=red, elevation=ELEVATION), loop(1), Painter(red[:4]))


def test_mixed_targets_lie_between_the_old_and_the_refined():
    old, new = disc((100, 0, 40)), disc((200, 100, 40))
    new[0, ..., 3] = 0
    frames, masks = mixed_targets((old, old[..., 3]), new, None, 0.25)
    assert frames[1, 16, 16].tolist() == [125, 25, 40, 255]
    assert masks.max(axis=(1, 2)).tolist() == [191] + [255] * 15
    assert np.array_equal(mixed_targets((old, old[..., 3]), new, None, 1.0)[0], new)


def test_rounds_mix_with_the_targets_before_them():
    dark, light = disc((0, 0, 0)), disc((200, 200, 200))
    given = Turntable(frames=dark, elevation=ELEVATION)
    _, history = reconstruct(given, loop(10, 20, mix=0.5), Painter(light))
    targets = [part["targets"][3, 16, 16, 0] for part in history if part["stage"] == "refine"]
    assert targets == [100, 150]


@pytest.mark.parametrize("mix", [0.0, 1.1, float("nan")])
def test_a_mix_out_of_range_is_refused(mix):
    with pytest.raises(ValueError, match=r"refine\.mix"):
        RefineConfig(mix=mix)
