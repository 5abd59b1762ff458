"""The benchmark of scoring: its loop gives the stage's scores, and its tables are read whole."""

from __future__ import annotations

import pytest
import torch

from benchmarks import evaluate
from eval.clip import Scorer
from recon.video_io import decode_mp4


def test_the_plain_loop_is_the_same_score() -> None:
    scorer, clips = Scorer.load("pocket"), list(evaluate.videos(3))
    text = scorer.embed_texts(["a red car"])[0]
    frames = [frame for clip in clips for frame in decode_mp4(clip)]
    scores = evaluate.plain_loop(scorer.model, scorer.preprocess, clips, text)
    assert scores.shape == (48,)
    assert scores == pytest.approx(scorer.text_similarity(frames, ["a red car"] * 48), abs=1e-3)
    assert torch.is_tensor(text)


def test_the_drivers_share_reads_every_row() -> None:
    assert 0 < evaluate.driver_mb(600) < 500
