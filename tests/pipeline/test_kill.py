"""SIGTERM of the driver, SIGKILL of actors: a reader never sees half an asset, nothing is lost or made twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from benchmarks.storm import survivors

ROOT = Path(__file__).resolve().parents[2]
COUNT = 16
pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]


def start(out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.slow_line", str(out), str(COUNT)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def visible(out: Path) -> list[str]:
    """The ids a reader sees: committed or published; each has all its files."""
    records = [*(out / "commits").glob("*.parquet"), *(out / "assets").glob("*.parquet")]
    ids = [i for record in records for i in pq.read_table(record)["prompt_id"].to_pylist()]
    for prompt_id in ids:
        folder = out / "files" / prompt_id
        assert (folder / "first").read_bytes() == (folder / "second").read_bytes() != b""
    return ids


def wait_for(out: Path, count: int, process: subprocess.Popen[str]) -> None:
    while len(visible(out)) < count:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def actors(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes of the line's actors."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if "MapWorker" in child.cmdline()[0]:
                found.append(child)
        except (psutil.Error, IndexError):
            continue
    return found


def test_stopped_driver_and_killed_actors_lose_and_repeat_nothing(tmp_path: Path) -> None:
    first = start(tmp_path)
    wait_for(tmp_path, 4, first)
    family = psutil.Process(first.pid).children(recursive=True)
    first.send_signal(signal.SIGTERM)
    _, errors = first.communicate()
    assert first.returncode == 1, errors
    assert "stopped; run the same command again to go on" in errors
    assert json.loads(next((tmp_path / "lease").iterdir()).read_text())["released"]
    seen = set(visible(tmp_path))
    assert 4 <= len(seen) < COUNT
    stamps = {i: (tmp_path / "files" / i / "second").stat().st_mtime_ns for i in seen}

    second = start(tmp_path)
    wait_for(tmp_path, len(seen) + 2, second)
    workers = actors(second)
    assert workers
    for worker in workers:
        worker.kill()
    output, errors = second.communicate()
    assert second.returncode == 0, errors

    ids = [i for part in (tmp_path / "assets").glob("*.parquet") for i in pq.read_table(part)["prompt_id"].to_pylist()]
    assert sorted(ids) == sorted(f"p{n}" for n in range(COUNT))
    assert not (tmp_path / "dead_letters").exists()
    assert not list((tmp_path / "commits").iterdir())
    made = next(int(line.split()[1]) for line in output.splitlines() if line.startswith("made "))
    assert made <= COUNT - len(seen)
    assert all((tmp_path / "files" / i / "second").stat().st_mtime_ns == stamp for i, stamp in stamps.items())
    assert survivors(family) == []
