import numpy as np
import pytest

from factory.config.settings import FactoryConfig
from factory.ledger.schemas import pack, unpack
from factory.stages.find_views import ViewFinder
from factory.stages.reconstruct import Reconstruct
from model.views import uniform_views
from recon import yield_gate
from recon.config import YieldConfig

FRAMES = np.zeros((4, 8, 8, 4), np.uint8)


class Video:
    """Every turntable is filled with its number."""

    def __init__(self):
        self.seeds, self.num_evaluations, self.views = [], {"steps": 4, "forwards": 4}, uniform_views(4)

    def generate(self, images, prompts, seeds):
        self.seeds += seeds
        return np.full((1, *FRAMES.shape), len(self.seeds), np.uint8)


class Judge:
    def probability(self, features):
        return features["score"]

    def reasons(self, features, words):
        return [f"score {features['score']}"]


def chosen(monkeypatch, scores, retries):
    """The row after the choice among turntables of the given scores, and the video model."""
    stage = object.__new__(Reconstruct)
    stage.config = FactoryConfig(yields=YieldConfig(enabled=True, retries=retries))
    stage.config.views.elevation = 0.4
    video = Video()
    stage.model = video
    stage.judge, stage.finder = Judge(), ViewFinder(stage.config.views, stage.config.orbit)

    def measure(frames, *rest):
        score = scores[int(frames.flat[0])]
        if score is None:
            raise ValueError("no mask holds an object")
        return {"score": score}

    monkeypatch.setattr(yield_gate, "measure", measure)
    row = {"frames": pack(FRAMES), "masks": pack(FRAMES[..., 3]), "elevation": 0.1, "image": pack(FRAMES[0])}
    row |= {"prompt": "a cat", "seed": 5, "yield_score": None, "steps_video": 4, "forwards_video": 4}
    stage._choose_turntable(row)
    return row, video


def test_a_good_turntable_is_kept_at_once(monkeypatch):
    row, video = chosen(monkeypatch, [0.2], retries=3)
    assert (row["yield_score"], row["yield_reasons"], row["elevation"]) == (0.2, ["score 0.2"], 0.1)
    assert video.seeds == []


def test_bad_turntables_are_made_anew_until_one_passes(monkeypatch):
    row, video = chosen(monkeypatch, [0.9, 0.8, 0.3, 0.1], retries=3)
    assert row["yield_score"] == 0.3
    assert unpack(row["frames"]).max() == 2
    assert row["elevation"] == 0.4
    assert len(set(video.seeds)) == 2
    assert row["steps_video"] == 12


def test_the_best_of_bad_turntables_stays(monkeypatch):
    row, _ = chosen(monkeypatch, [0.9, 0.7, 0.8], retries=2)
    assert row["yield_score"] == 0.7
    assert unpack(row["frames"]).max() == 1


def test_a_blank_turntable_is_the_worst_of_all(monkeypatch):
    row, _ = chosen(monkeypatch, [0.9, None], retries=1)
    assert (row["yield_score"], unpack(row["frames"]).max()) == (0.9, 0)
    row, _ = chosen(monkeypatch, [None, 0.3], retries=1)
    assert (row["yield_score"], unpack(row["frames"]).max()) == (0.3, 1)
    row, _ = chosen(monkeypatch, [None], retries=0)
    assert (row["yield_score"], row["yield_reasons"]) == (1.0, ["no mask holds an object"])


def test_retries_without_a_judge_are_refused():
    with pytest.raises(ValueError, match=r"yields\.enabled"):
        YieldConfig(retries=2)
