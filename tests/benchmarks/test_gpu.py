import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.full_size import FULL_SIZES
from benchmarks.gpu import page
from benchmarks.gpu_models import adapters, training

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "benchmarks.gpu", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)


def test_tiny_runs_on_the_cpu_and_names_what_it_skips(tmp_path):
    done = run("--tiny", "--results", str(tmp_path))
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    rows = {row["part"]: row for row in summary["rows"]}
    for count in (1, 2):
        row = rows[f"fit of {count}"]
        assert row["seconds"] > 0
        assert row["assets_an_hour"] == pytest.approx(3600 * count / row["seconds"])
    assert [name for name, row in rows.items() if "skipped" in row] == [
        "parity of the engines", "recovery from a full memory",
    ]  # fmt: skip
    assert list(tmp_path.iterdir()) == []
    others = [name for name in rows if not name.startswith(("fit of", "parity", "recovery"))]
    assert others == [
        "training step, activations recomputed", "training step, activations kept",
        "tiny Stable Video Diffusion, step", "tiny Stable Video Diffusion, decoding",
    ]  # fmt: skip
    assert all(rows[name]["seconds"] > 0 for name in others)


def test_without_a_gpu_it_says_so():
    done = run()
    assert done.returncode == 1
    assert "give --tiny" in done.stderr


def test_the_table_has_every_column():
    table = page([{"part": "a", "seconds": 1.23456}, {"part": "b", "holds": True}]).splitlines()
    assert table == ["| part | seconds | holds |", "| --- | --- | --- |", "| a | 1.235 |  |", "| b |  | True |"]


def test_what_a_card_cannot_hold_is_skipped_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (8 << 30, 8 << 30))
    assert training(False) == [{"part": "training step", "skipped": "needs about 40 GiB free"}]
    monkeypatch.setattr("benchmarks.gpu_models.FULL_SIZES", [row for row in FULL_SIZES if row.name == "SDXL"])
    assert adapters(False) == [{"part": "SDXL, step", "skipped": "needs about 11 GiB, 8 are free"}]
    assert adapters(False, ends=0.0) == [{"part": "SDXL, step", "skipped": "the time is up"}]
