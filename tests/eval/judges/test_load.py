"""Judges by name: what a user writes, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from eval.config import JudgeConfig
from eval.judges.judge import Subject
from eval.judges.load import load_judges
from eval.judges.scores import scores_of
from eval.protocols import Protocol
from eval.score_columns import ANSWER, CONSISTENCY, FIDELITY, measure_of


def test_judges_are_named_with_their_weights(qwen2_vl: Path) -> None:
    config = JudgeConfig.parse(f"vqa={qwen2_vl}")
    assert config == JudgeConfig(kind="vqa", weights=str(qwen2_vl))
    assert JudgeConfig.parse("dists=a=b.safetensors").weights == "a=b.safetensors"
    for text in ("vqa", "vqa=", "clipiqa=x", ""):
        with pytest.raises(ValueError, match=rf"judge '{text}' is none; available: lpips-vgg=FILE .* vqa=FOLDER"):
            JudgeConfig.parse(text)
    with pytest.raises(ValueError, match="two judges are called vqa_tiny-qwen"):
        load_judges([config, config])


def test_scores_are_pooled_by_the_protocol(qwen2_vl: Path) -> None:
    (judge,) = load_judges([JudgeConfig.parse(f"vqa={qwen2_vl}")], "cpu")
    views = np.random.default_rng(0).integers(0, 256, (162, 16, 16, 3), dtype=np.uint8)
    subjects = [Subject(prompt="a cup", seen={"renders": views}), Subject(prompt="a cup")]
    best = Protocol(layout="sphere", num_views=162, pooling="best place")
    mean, nothing = scores_of(judge, subjects, Protocol())
    row, _ = scores_of(judge, subjects[:1] * 2, best)
    assert nothing == {}
    column = "vqa_tiny-qwen_renders"
    assert mean[column] == pytest.approx(np.mean(mean[f"{column}_views"]))
    assert np.mean(mean[f"{column}_views"]) < row[column] < max(row[f"{column}_views"])


def test_every_column_is_a_measure() -> None:
    for column, group, low in [
        ("vqa_my_qwen-2_renders", ANSWER, False),
        ("vqa_qwen_frames@0123", ANSWER, False),
        ("lpips_vgg_renders_truth", FIDELITY, True),
        ("lpips_alex_renders_frames", CONSISTENCY, True),
        ("dists_renders_truth", FIDELITY, True),
    ]:
        measure = measure_of(column)
        assert (measure.group, measure.low) == (group, low)
    with pytest.raises(ValueError, match="is no score"):
        measure_of("vqa_qwen_renders_views")
