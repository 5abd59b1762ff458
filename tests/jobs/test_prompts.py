"""`im3d prompts`: remarks are printed and counted, and what has none is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs import generate, prompts


def test_remarks_and_what_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, out = tmp_path / "prompts.txt", tmp_path / "kept.jsonl"
    table.write_text("a red car\na horse galloping\n\na cup\n")
    assert prompts.main(["--prompts", str(table), "--out", str(out)]) == 1
    text = capsys.readouterr().out
    assert "motion (galloping): a horse galloping" in text
    assert "1 x motion" in text
    assert "3 prompts, 1 with remarks, 1 rows unusable" in text
    assert [json.loads(line)["prompt"] for line in out.read_text().splitlines()] == ["a red car", "a cup"]
    assert prompts.main(["--prompts", str(out)]) == 0


def test_a_suite_or_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "prompts.txt").write_text("a red car\na cup\n")
    suite = ["--suite", "gpteval3d", "--suite-path", str(tmp_path)]
    assert prompts.main(suite) == 0
    assert "2 prompts, 0 with remarks" in capsys.readouterr().out
    for job, extra in ((prompts, []), (generate, ["--out", str(tmp_path / "out")])):
        for flags in ([], suite[:2], [*suite, "--prompts", "x.txt"]):
            assert job.main([*flags, *extra]) == 2
            assert "either --prompts, or --suite with --suite-path" in capsys.readouterr().err
