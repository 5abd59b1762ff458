"""Scores of an asset: each picture embedded once, pooled by the protocol, and what is missing stays missing."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from eval.clip import Scorer
from eval.protocols import Protocol
from eval.score_columns import clip_columns
from eval.similarity import mean_scores, score_asset

NAME = "pocket"
SEEN = {
    what: np.random.default_rng(seed).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    for seed, what in enumerate(("frames", "renders"))
}
IMAGE = np.full((32, 32, 3), 90, np.uint8)


def likeness(scorer: Scorer, images: Sequence[np.ndarray], reference: np.ndarray) -> np.ndarray:
    """100 x cosine [B] of each picture with the picture `reference`."""
    return 100 * (scorer.embed_images(images) @ scorer.embed_images([reference])[0]).numpy()


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer.load(NAME)


def test_scores_are_those_of_the_scorer_and_pictures_are_embedded_once(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = {}
    for what, views in SEEN.items():
        expected[f"clip_text_{what}_{NAME}"] = scorer.text_similarity(list(views), ["a red car"] * 4).mean()
        expected[f"clip_image_{what}_{NAME}"] = likeness(scorer, list(views), IMAGE).mean()
    embedded, embed = [], scorer.embed_images
    monkeypatch.setattr(scorer, "embed_images", lambda images: embedded.append(len(images)) or embed(images))
    found = mean_scores(scorer, SEEN, "a red car", IMAGE)
    assert found == pytest.approx(expected, abs=1e-3)
    assert embedded == [9]
    assert list(found) == clip_columns(NAME)


def test_what_is_missing_is_no_number(scorer: Scorer) -> None:
    for prompt in (None, ""):
        found = score_asset(scorer, SEEN, prompt, IMAGE, {"a cup": scorer.embed_texts(["a cup"])[0].numpy()})
        assert found[f"clip_text_frames_{NAME}"] is found[f"clip_text_renders_{NAME}_views"] is None
        assert found[f"rank_text_frames_{NAME}"] is None
        assert found[f"clip_image_frames_{NAME}"] == pytest.approx(np.mean(found[f"clip_image_frames_{NAME}_views"]))
    means = mean_scores(scorer, SEEN, "", None)
    assert np.isnan(list(means.values())).all()


def test_the_protocol_pools_views(scorer: Scorer) -> None:
    best = Protocol(layout="sphere", num_views=162, pooling="best place")
    views = np.repeat(SEEN["frames"], 41, 0)[:162]
    found = score_asset(scorer, {"renders": views}, "a cup", None, {}, best)
    mean = score_asset(scorer, {"renders": views}, "a cup", None, {}, replace(best, pooling="mean"))
    by_view = found[f"clip_text_renders_{NAME}_views"]
    assert by_view == mean[f"clip_text_renders_{NAME}_views"]
    assert mean[f"clip_text_renders_{NAME}"] == pytest.approx(np.mean(by_view))
    assert np.mean(by_view) < found[f"clip_text_renders_{NAME}"] < max(by_view)
