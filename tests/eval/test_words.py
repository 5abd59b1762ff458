"""Words of prompts against counts made by hand."""

from __future__ import annotations

import numpy as np

from eval.words import count_motion, count_words, has_motion, words_of


def test_words_are_those_of_any_language_without_articles() -> None:
    assert words_of("A Red car's wheel, the WELL-made Käse 42") == {"red", "car's", "wheel", "well-made", "käse"}


def test_motion_is_a_verb_and_no_thing() -> None:
    assert has_motion("a horse GALLOPING over a hill")
    assert not has_motion("a swing, a fly and a walk")


def test_shares_and_scores_of_a_word() -> None:
    prompts = [f"red cup {k}" for k in range(6)] + [f"blue cup {k}" for k in range(6)] + ["rare"] * 4
    failed = [k < 3 for k in range(16)]
    scores = np.array([1.0] * 5 + [np.nan] + [3.0] * 10)
    red, cup, blue = count_words(prompts, failed, scores)  # the word of four prompts says nothing
    assert (red.word, red.prompts, red.failed, red.share, red.mean_score) == ("red", 6, 3, 0.5, 1.0)
    assert red.low < 0.5 < red.high
    spread = np.nanstd(scores, ddof=1)
    assert red.z == (1 - np.nanmean(scores)) / (spread / np.sqrt(5))
    assert (cup.word, cup.failed, blue.word, blue.failed) == ("cup", 3, "blue", 0)


def test_prompts_with_and_without_motion() -> None:
    prompts, scores = ["a dog running", "a dog", "a cat"], np.array([np.nan, 2.0, 4.0])
    moving, still = count_motion(prompts, [True, False, True], scores)
    assert (moving.prompts, moving.failed, still.prompts, still.failed) == (1, 1, 2, 1)
    assert np.isnan(moving.mean_score)
    assert still.mean_score == 3
    assert [count.word for count in count_motion(["a dog"], [False], np.array([1.0]))] == ["without"]
