"""Assets are chosen by conditions and licences, and split by prompt."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from factory.outputs.dataset.choose import matching, of_licenses, split_of
from factory.outputs.dataset.licenses import allowed_together
from recon.user_error import UserError

MODELS = [
    {"image": {"license": "Apache-2.0"}, "video": {"license": "mit"}},
    {"image": {"license": "openrail++ + mit"}},
    {"video": {"revision": "sha256:1"}},
    {},
]
TABLE = pa.table(
    {
        "prompt": ["a red ball", "a 'cup'", None, "a dog"],
        "clip_text": [30.0, None, 10.0, 20.0],
        "yield_reasons": pa.array([["flat"], [], None, ["two objects", "flat"]], pa.list_(pa.string())),
        "models": [json.dumps(models) for models in MODELS],
    }
)


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ("clip_text > 15", [0, 3]),
        ("clip_text IS NULL OR prompt LIKE '%dog'", [1, 3]),
        ("list_contains(yield_reasons, 'flat') -- why", [0, 3]),
        ("prompt = 'a ''cup'''", [1]),
        ("true", [0, 1, 2, 3]),
        ("false", []),
    ],
)
def test_conditions_are_those_of_duckdb(where: str, rows: list[int]) -> None:
    assert matching(TABLE, where).to_pylist() == TABLE.take(pa.array(rows, pa.int64())).to_pylist()


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("clip_tex > 3", "names 'clip_tex', which no run has as a column; did you mean clip_text"),
        ("zebra", "Available: clip_text, models, prompt, yield_reasons"),
        ("clip_text >", "is no condition over the columns"),
        ("true); DROP TABLE assets; --", "is no condition over the columns"),
        ("prompt IN (SELECT content FROM read_text('{file}'))", "is no condition over the columns"),
    ],
)
def test_what_is_no_condition_is_one_sentence(tmp_path: Path, where: str, message: str) -> None:
    (tmp_path / "secret.txt").write_text("a dog")
    with pytest.raises(UserError, match=message) as caught:
        matching(TABLE, where.format(file=tmp_path / "secret.txt"))
    assert "\n" not in str(caught.value)


def test_every_licence_of_an_asset_must_be_allowed() -> None:
    assert of_licenses(TABLE, ["apache-2.0", "MIT"])["prompt"].to_pylist() == ["a red ball"]
    assert of_licenses(TABLE, ["mit", "openrail++"])["prompt"].to_pylist() == ["a 'cup'"]
    assert of_licenses(TABLE, ["unknown"])["prompt"].to_pylist() == [None, "a dog"]


def test_splits_go_by_prompt_and_have_their_shares() -> None:
    found = Counter(split_of(f"prompt {k}", "", 0.2, 0.1) for k in range(5000))
    assert found["validation"] == pytest.approx(1000, rel=0.1)
    assert found["test"] == pytest.approx(500, rel=0.15)
    for k in range(50):
        assert split_of(f" A  Prompt {k}", "x", 0.2, 0.1) == split_of(f"a prompt {k}", "y", 0.2, 0.1)
    assert len({split_of("", f"id{k}", 0.3, 0.3) for k in range(20)}) == 3, "without prompts, by id"


def test_the_strictest_licence_counts() -> None:
    assert allowed_together(["mit", "apache-2.0"]) == ["Commercial use is allowed by all of them."]
    said = allowed_together(["mit", "openrail++", "cc-by-nc-4.0", "own"])
    assert said == [
        "Not known here, so read before any use: own.",
        "Not for commercial use without asking: cc-by-nc-4.0.",
        "Some uses are forbidden by a list in the licence, also to those it is passed on to: openrail++.",
        "The authors must be named: cc-by-nc-4.0.",
    ]
