"""`im3d generate --dry-run`: a sample of the table without Ray, and nothing in the output folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import ray

from factory.config.settings import preset
from factory.line.placement import Node
from jobs import generate
from jobs.dry_run import laid_out

pytestmark = pytest.mark.timeout(600)
CHEAP = ["--image.steps", "1", "--video.steps", "1", "--fit.iterations", "10", "--fit.num-points", "500"]
CHEAP += ["--refine.rounds-at", "--line.pools", "reconstruct=1", "--views.elevation", "0.3"]
CHEAP += ["--files.turntable-frames", "16"]


@pytest.fixture
def table(tmp_path: Path) -> list[str]:
    rows = [json.dumps({"prompt_id": f"p{k}", "prompt": f"a red cup {k}"}) for k in range(20)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(rows))
    return ["--prompts", str(tmp_path / "prompts.jsonl"), "--out", str(tmp_path / "out"), *CHEAP]


def test_a_sample_is_made_and_the_table_estimated(
    tmp_path: Path, table: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    prices = ["--cost.cpu-hour-price", "0.05", "--cost.storage-gb-month-price", "0.02"]
    kept = tmp_path / "kept"
    assert generate.main([*table, *prices, "--dry-run", "3", "--dry-run-out", str(kept)]) == 0
    assert not ray.is_initialized()
    assert not (tmp_path / "out").exists()
    found = json.loads((kept / "estimate.json").read_text())
    assert (found["prompts"], found["sampled"], found["share"]["mid"]) == (20, 3, 1.0)
    files = [file.stat().st_size for file in (kept / "files").rglob("*") if file.is_file()]
    tables = [file.stat().st_size for file in (kept / "assets").glob("*")]
    assert found["size"]["mid"] == pytest.approx(20 / 3 * (sum(files) + sum(tables)))
    assert found["forwards"]["mid"] == 20 * (2 + 1)  # guidance doubles the image model's one step
    assert found["seconds"]["low"] <= found["seconds"]["mid"] <= found["seconds"]["high"]
    assert found["dollars"]["mid"] == pytest.approx(found["seconds"]["mid"] * 6 * 0.25 * 0.05 / 3600)
    assert found["model_dollars"]["mid"] < found["dollars"]["mid"]
    text = capsys.readouterr().out
    assert "20 prompts, from a sample of 3; the run waits for" in text
    assert "storage a month" in text
    assert generate.main([*table, "--dry-run", "3", "--dry-run-out", str(kept)]) == 2
    assert "holds outcomes already" in capsys.readouterr().err


def test_a_suite_leaves_nothing_in_the_output_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "prompts.txt").write_text("a red car\na cup\n")
    suite = ["--suite", "gpteval3d", "--suite-path", str(tmp_path), "--out", str(tmp_path / "out")]
    assert generate.main([*suite, "--dry-run", "1"]) == 2
    assert "a dry run of 1 prompts" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_pools_grow_as_the_run_would_let_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A box of eight GPUs; a fit takes as long as all else together, so about half of the actors are its."""
    eight = Node(cpus=100, gpus=8, labels={})
    monkeypatch.setattr("factory.line.nodes.this_machine", lambda: eight)
    seconds = {
        "image": [1.0],
        "video": [20.0, 24.0],
        "views": [1.0],
        "reconstruct": [23.0],
        "score": [1.0],
        "commit": [0.1],
    }
    pools = laid_out(preset("paper"), seconds)
    assert (pools["video"].max_actors or 0) > 10
    assert abs((pools["video"].max_actors or 0) - (pools["reconstruct"].max_actors or 0)) <= 2
    assert pools["commit"].max_actors == 1


def test_pools_without_room_are_refused_before_anything_is_made(
    tmp_path: Path, table: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "kept"
    pools = ["--line.pools", "reconstruct=1x500cpu"]
    assert generate.main([*table, *pools, "--dry-run", "3", "--dry-run-out", str(kept)]) == 2
    assert "the line reserves" in capsys.readouterr().err
    assert not list(kept.glob("assets/*"))


def test_mistakes_are_one_sentence(table: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main([*table, "--dry-run", "1"]) == 2
    assert "a dry run of 1 prompts tells no spread; give at least 2" in capsys.readouterr().err
    assert not Path(table[3]).exists()
