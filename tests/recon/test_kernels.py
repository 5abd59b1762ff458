"""gsplat's kernels are loaded by one process at a time, and a lock that is left behind stops nobody."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path

import pytest
from filelock import FileLock

from recon.rasterize import kernels
from recon.user_error import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    kernels.load_kernels.cache_clear()
    return tmp_path / "gsplat_cuda"


def backend(monkeypatch: pytest.MonkeyPatch, extension: object) -> None:
    module = types.ModuleType("gsplat.cuda._backend")
    module._C = extension  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gsplat.cuda._backend", module)


def test_kernels_that_cannot_be_built_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    backend(monkeypatch, None)
    with pytest.raises(UserError, match=r"no nvcc to build them: take the image of infra/Dockerfile\.gpu"):
        kernels.load_kernels()
    backend(monkeypatch, object())
    kernels.load_kernels()
    assert not kernels.are_built()


def test_the_lock_of_a_process_that_died_is_taken_over(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process takes the lock, begins to build as torch does, and is killed."""
    code = (
        "import os, pathlib, signal; from filelock import FileLock; from recon.rasterize.kernels import build_folder\n"
        "place = build_folder(); place.mkdir(parents=True); FileLock(f'{place}.building').acquire()\n"
        "(place / 'lock').touch(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, timeout=120)
    assert (folder / "lock").exists()
    assert Path(f"{folder}.building").exists()
    backend(monkeypatch, object())
    kernels.load_kernels()


def test_others_wait_while_one_builds(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend(monkeypatch, object())
    monkeypatch.setattr("filelock.FileLock", lambda place: FileLock(place, timeout=0.2))
    with FileLock(f"{folder}.building"), pytest.raises(TimeoutError):
        kernels.load_kernels()
    kernels.load_kernels()
