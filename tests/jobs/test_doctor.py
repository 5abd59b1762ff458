"""`im3d doctor`: one line a thing, a cure for each miss, and an exit code."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from factory.stages import doctor
from jobs.doctor import main


def test_the_embedded_preset_runs_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "nothing amiss" in shown
    names = {line.split()[1] for line in shown.splitlines()[:-1]}
    assert names >= {
        "torch",
        "GPU",
        "gsplat",
        "image",
        "video",
        "judge",
    }
    assert len(shown.splitlines()) <= 24  # one screen


def test_every_miss_of_the_papers_preset_has_a_cure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("U2NET_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["--preset", "paper", "--weights", str(tmp_path / "w"), "--out", "s3://nowhere/x",
                 "--storage.endpoint", "http://127.0.0.1:9", "--storage.attempts", "1"]) == 1  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    missed = {line.split()[1]: lines[number + 1] for number, line in enumerate(lines) if line.startswith("MISS")}
    assert missed.keys() >= {"GPU", "gsplat", "image", "video", "masks", "estimator", "judge", "storage"}
    assert f"im3d weights pull sdxl --to {tmp_path}/w --accept-license sdxl" in missed["image"]
    assert "im3d finetune --target elevation-dino" in missed["estimator"]
    assert all(cure.startswith("   ") for cure in missed.values())


def gpus(monkeypatch: pytest.MonkeyPatch, free: int, total: int) -> None:
    fakes: dict[str, Any] = {
        "is_available": lambda: True, "device_count": lambda: 2, "mem_get_info": lambda number=0: (free, total),
        "get_device_name": lambda number: "H200",
    }  # fmt: skip
    for name, value in fakes.items():
        monkeypatch.setattr(torch.cuda, name, value)


def test_cards_are_listed_with_their_memory_and_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 130 << 30, 139 << 30)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(stdout="580.65\n580.65\n"))
    driver, *cards = doctor.cards(True)
    assert driver.found == "580.65"
    assert [card.found for card in cards] == ["H200, 130.0 of 139.0 GiB free"] * 2
    gpus(monkeypatch, 30 << 30, 139 << 30)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError()))
    driver, card, _ = doctor.cards(True)
    assert "nvidia-smi" in driver.cure
    assert "other processes hold its memory" in card.cure


def test_kernels_are_there_to_be_built_or_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert "no nvcc" in doctor.kernels(True).found
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/nvcc")
    assert "python -m recon.rasterize.kernels" in doctor.kernels(True).cure
    (tmp_path / "gsplat_cuda").mkdir()
    (tmp_path / "gsplat_cuda" / "gsplat_cuda.so").touch()
    assert doctor.kernels(True).cure == ""
    assert doctor.kernels(False).cure == ""


def test_masks_on_the_processor_beside_a_gpu_are_a_miss() -> None:
    assert "paper-gpu" in doctor.masks_device("u2netp", on_gpu=True).cure  # onnxruntime without CUDA is installed here
    assert doctor.masks_device("u2netp", on_gpu=False).cure == ""
    assert doctor.masks_device("pocket", on_gpu=True).cure == ""


def test_little_shared_memory_and_a_cache_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=64 << 20))
    assert "--shm-size" in doctor.shared_memory().cure
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    assert "NUMBA_CACHE_DIR" in doctor.numba_cache().cure
