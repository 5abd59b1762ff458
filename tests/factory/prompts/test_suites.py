"""Suites as their repositories have them, and the lists of the real ones where a copy is at hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from factory.prompts.prompt_table import read_prompts
from factory.prompts.suites import SUITES, read_suite, write_suite
from factory.storage.store import open_store

COPIES = Path(__file__).parents[4] / "shared" / "prompts"


@pytest.mark.parametrize(
    ("name", "place", "text"),
    [
        ("dreamfusion", "load/prompt_library.json", json.dumps({"dreamfusion": ["a red car", " a cup "]})),
        ("t3bench-surr", "data/prompt_surr.txt", "a red car\n\na cup\n"),
        ("gpteval3d", "prompts.json", json.dumps([{"prompt": "a red car"}, "a cup"])),
        ("gpteval3d", "gpteval3d.jsonl", '{"id": "x", "prompt": "a red car"}\n{"prompt": "a cup"}\n'),
    ],
)
def test_each_form_is_read(tmp_path: Path, name: str, place: str, text: str) -> None:
    file = tmp_path / place
    file.parent.mkdir(exist_ok=True)
    file.write_text("\ufeff" + text)
    wanted = [{"prompt_id": f"{name}-0000", "prompt": "a red car"}, {"prompt_id": f"{name}-0001", "prompt": "a cup"}]
    assert read_suite(name, str(tmp_path)) == wanted
    assert read_suite(name, str(file)) == wanted
    table = read_prompts(write_suite(open_store(str(tmp_path / "out")), name, str(file)))
    assert [(row.prompt_id, row.prompt) for row in table.prompts] == [(r["prompt_id"], r["prompt"]) for r in wanted]


@pytest.mark.parametrize("name", SUITES)
def test_the_published_lists_are_whole(name: str) -> None:
    if not COPIES.is_dir():
        pytest.skip(f"no copy of the suites at {COPIES}")
    assert len(read_suite(name, str(COPIES))) == SUITES[name].count


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is no threestudio"), ('{"magic3d": []}', "is no threestudio"), ("[1]", "is no threestudio"),
     ("[]", "holds no prompts")],
)  # fmt: skip
def test_other_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "prompt_library.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_suite("dreamfusion", str(tmp_path))
    with pytest.raises(ValueError, match="holds none of t3bench-surr"):
        read_suite("t3bench-surr", str(tmp_path))
    with pytest.raises(ValueError, match=r"suite 'coco' not found. Available: dreamfusion"):
        read_suite("coco", str(tmp_path))
