"""Ray Train with real workers: one is killed, and nobody can tell from the result."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from factory.storage.store import StorageConfig
from factory.training.finetune import driver, worker
from factory.training.finetune.driver import train
from factory.training.finetune.prepare import prepare
from factory.training.finetune.recorder import read_log
from factory.training.finetune.run import setting_of
from factory.training.finetune.settings import WorkersConfig
from factory.training.finetune.worker import Session, train_worker
from factory.training.shards.draw_order import plain_batches
from jobs import finetune
from model.checkpoints import Checkpoints
from model.config import TrainConfig
from model.parallel import World

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]
STEPS, SAVE_EVERY = 30, 5


@pytest.fixture(scope="module", autouse=True)
def _cluster():
    yield
    ray.shutdown()


def run_of(shards: Path, weights: Path, out: str, **config):
    settings = {"num_steps": STEPS, "save_every": SAVE_EVERY, "log_every": 1, "warmup_steps": 3, "precision": "float32"}
    workers = WorkersConfig(workers=config.pop("workers", 1), parallel=config.pop("parallel", "ddp"))
    settings |= {"validation_turntables": 0, "decay_share": 0.0} | config
    return prepare(
        "temporal", str(shards), str(weights), out, "train", TrainConfig(**settings), workers, StorageConfig()
    )


def losses(run) -> list[float]:
    return [row["loss"] for row in read_log(run.store)]


def kill_one(run, killed: list[int]) -> None:
    """SIGKILL one training worker once the second checkpoint is there."""
    while Checkpoints(run.store).steps()[-1:] < [2 * SAVE_EVERY]:
        time.sleep(0.02)
    for process in psutil.Process().children(recursive=True):
        if "RayTrainWorker" in " ".join(process.cmdline()):
            os.kill(process.pid, signal.SIGKILL)
            killed.append(process.pid)
            return


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory, tiny_shards: Path, pocket_writer) -> list[dict[str, float]]:
    """The log of 2 workers x 30 steps that nothing disturbs."""
    folder = tmp_path_factory.mktemp("calm")
    run = run_of(tiny_shards, pocket_writer(folder / "weights"), str(folder / "run"), workers=2)
    assert train(run) == 0
    return read_log(run.store)


def test_a_killed_worker_changes_nothing(tmp_path: Path, tiny_shards: Path, tiny_pocket: Path, calm) -> None:
    """2 workers x 30 steps, one SIGKILLed: as many steps, and the loss of each to 1e-4, as if it had lived."""
    hit = run_of(tiny_shards, tiny_pocket, str(tmp_path / "hit"), workers=2)
    killed: list[int] = []
    killer = threading.Thread(target=kill_one, args=(hit, killed), daemon=True)
    killer.start()
    assert train(hit) == 0
    killer.join()
    assert killed
    assert [row["step"] for row in read_log(hit.store)] == list(range(1, STEPS + 1))
    assert losses(hit) == pytest.approx([row["loss"] for row in calm], abs=1e-4)
    assert len(set(losses(hit))) == STEPS


def test_shards_of_the_model_train_as_copies_do(tmp_path: Path, tiny_shards: Path, tiny_pocket: Path, calm) -> None:
    """Three steps before and three after a checkpoint with its validation, which overwrites the weights for a while."""
    config = {"num_steps": 6, "save_every": 3, "validation_turntables": 2, "workers": 2, "parallel": "fsdp"}
    run = run_of(tiny_shards, tiny_pocket, str(tmp_path / "fsdp"), **config)
    assert train(run) == 0
    rows = read_log(run.store)
    assert len(rows) == 6
    for name in ("loss", "grad_norm"):
        assert [row[name] for row in rows] == pytest.approx([row[name] for row in calm[:6]], rel=1e-4), name


def test_one_worker_under_ray_is_the_plain_loop(tmp_path: Path, tiny_shards: Path, tiny_pocket: Path) -> None:
    base = (tiny_pocket / "video" / "diffusion_pytorch_model.safetensors").read_bytes()
    plain, ray_run = (run_of(tiny_shards, tiny_pocket, str(tmp_path / n), num_steps=6) for n in ("plain", "ray"))
    train_worker(plain, World(), lambda start, share: plain_batches(plain.reader(), share.micro, start))
    assert train(ray_run) == 0
    assert losses(ray_run) == pytest.approx(losses(plain), abs=1e-6)
    assert (tiny_pocket / "video" / "diffusion_pytorch_model.safetensors").read_bytes() != base


def test_validation_is_the_same_for_any_workers_and_micro_batch(tmp_path: Path, shards_writer, tiny_pocket) -> None:
    """Seven turntables of 2 a batch: three batches, which two workers or four take in turns."""
    shards = shards_writer(tmp_path / "shards", {"box-0": "a red box"})
    shards_writer(shards, {f"ball-{n}": f"a {n} ball" for n in range(1, 5)}, split="val")
    run = run_of(shards, tiny_pocket, str(tmp_path / "run"), validation_turntables=7, total_batch=4)
    small = run_of(shards, tiny_pocket, str(tmp_path / "small"), validation_turntables=7, micro_batch=1)
    alone, halved = (Session(run, World(), setting_of(run, tmp_path / run.out)) for run in (run, small))
    whole = alone.training.validate(alone.validation)
    assert halved.training.validate(halved.validation) == whole
    assert len({caption for _, batch in alone.validation for caption in batch.captions}) > 1
    for size in (2, 4):
        dealt = []
        for rank in range(size):
            alone.world = World(rank=rank, size=size)
            dealt.append(alone._validation())
        assert {len(part) for part in dealt} == {-(-3 // size)}
        assert {number for part in dealt for number, _ in part} == {0, 1, 2}
        assert alone.training.validate([pair for part in dealt for pair in part]) == whole


def test_a_loss_that_is_no_number_is_not_tried_again(
    tmp_path: Path, tiny_shards: Path, tiny_pocket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"num_steps": 9, "learning_rate": 1e30, "save_every": 1, "warmup_steps": 1}
    run = run_of(tiny_shards, tiny_pocket, str(tmp_path / "run"), **config)
    work = driver.work

    def counted(config: dict[str, Any]) -> None:
        """Leaves a file for every group of workers that begins to train."""
        original = worker.train_worker

        def begun(*arguments: Any, **named: Any) -> None:
            (tmp_path / f"begun-{os.getpid()}").touch()
            original(*arguments, **named)

        worker.train_worker = begun
        work(config)

    monkeypatch.setattr(driver, "work", counted)
    with pytest.raises(RuntimeError, match=r"training stopped: the .* at step \d; the checkpoints"):
        train(run)
    assert len(list(tmp_path.glob("begun-*"))) == 1


def test_what_ends_a_training_is_kept_without_secrets(
    tmp_path: Path,
    tiny_shards: Path,
    tiny_pocket: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def broken(config: dict[str, Any]) -> None:
        raise RuntimeError("https://user:in-the-address@host/ did not take the token in-the-environment")

    monkeypatch.setenv("STORAGE_TOKEN", "in-the-environment")
    monkeypatch.setattr(driver, "work", broken)
    flags = ["--target", "temporal", "--shards", str(tiny_shards), "--weights", str(tiny_pocket)]
    assert finetune.main([*flags, "--out", str(tmp_path / "run"), "--max-failures", "0"]) == 3
    kept = (tmp_path / "run" / "failure.txt").read_text()
    line = broken.__code__.co_firstlineno + 1
    assert re.search(rf'File ".*test_driver.py", line {line}, in broken', kept)
    assert "RuntimeError: https://[hidden]@host/ did not take the token [hidden]" in kept
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: RuntimeError at ")
    assert f"training stopped at finetune/test_driver.py:{line}: " in last
    assert f"the traceback is in {tmp_path}/run/failure.txt" in last
    assert "in-the-" not in kept + last
