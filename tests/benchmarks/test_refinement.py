"""The refinement benchmark's flaws and its summary, on figures that are known."""

import numpy as np
import pytest

from benchmarks.refinement import FLAWS, Arguments, frames_of, summary_of


class Still:
    """A turntable model that repeats the first frame."""

    def generate(self, images, prompts, seeds):
        return np.repeat(images[:, None], 16, 1)


def test_every_flaw_keeps_the_shape_and_only_clean_frames_are_true():
    truth = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 4)).astype(np.uint8)
    for flaw in FLAWS:
        frames = frames_of(flaw, truth, Still(), "a box", 3)
        assert frames.shape == truth.shape
        assert frames.dtype == np.uint8
        assert np.array_equal(frames, truth) == (flaw == "clean")
    doubled = frames_of("doubled", truth, None, "a box", 3)
    assert doubled[15, 0, 0, 0] == (int(truth[15, 0, 0, 0]) + int(truth[0, 0, 0, 0])) // 2


def test_the_summary_pairs_assets():
    rows = [
        {"asset": asset, "flaw": "jitter", "rounds": rounds, "psnr": 20.0, "iou": 0.9, "lpips": lpips}
        for asset, values in {"a": (0.2, 0.1), "b": (0.3, 0.21), "c": (0.4, 0.29)}.items()
        for rounds, lpips in enumerate(values)
    ]
    summary = summary_of(rows)
    assert summary["lpips"]["jitter"] == {0: 0.3, 1: 0.2}
    assert summary["p_lpips"]["jitter"] < 0.01
    assert summary["assets"] == 3
    assert summary_of(rows[:2])["p_lpips"] == {}


def test_rounds_start_from_none(tmp_path):
    with pytest.raises(ValueError, match="give 0 and more, rising"):
        Arguments(assets=tmp_path, rounds=(1, 2))
    with pytest.raises(ValueError, match="give some of generated"):
        Arguments(assets=tmp_path, flaws=("spin",))
