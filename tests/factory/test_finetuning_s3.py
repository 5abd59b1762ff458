"""Shards, weights, checkpoints and log on a real S3 server; a run that was cut there goes on under Ray Train."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray

from factory.controller import prepare, train
from factory.finetuning import train_worker
from factory.recorder import read_log
from factory.store import StorageConfig, open_store
from factory.stream import plain_batches
from factory.training_run import WorkersConfig
from model.checkpoints import Checkpoints
from model.config import TrainConfig
from model.parallel import World

pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("s3")]


def upload(folder: Path, url: str) -> str:
    store = open_store(url)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            store.put(path.relative_to(folder).as_posix(), path.read_bytes())
    return url


class Cut(Exception):
    pass


def feed(run, stop: int | None = None):
    """The stream of the plain loop, cut before step `stop`."""

    def batches(start, share):
        for step, batch in enumerate(plain_batches(run.reader(), share.micro, start)):
            if step == stop:
                raise Cut
            yield batch

    return batches


def test_a_run_that_was_cut_goes_on_from_s3(tmp_path: Path, tiny_shards: Path, tiny_pocket: Path) -> None:
    remote = upload(tiny_shards, "s3://test/shards"), upload(tiny_pocket, "s3://test/weights"), "s3://test/run"
    here = str(tiny_shards), str(tiny_pocket), str(tmp_path / "run")
    config = TrainConfig(num_steps=8, save_every=3, log_every=1, precision="float32", validation_turntables=2)
    whole, cut = (
        prepare("temporal", *places, "train", config, WorkersConfig(), StorageConfig()) for places in (here, remote)
    )
    train_worker(whole, World(), feed(whole))
    with pytest.raises(Cut):
        train_worker(cut, World(), feed(cut, stop=4))
    assert Checkpoints(cut.store).steps() == [3]
    ray.shutdown()  # a new Ray, so that its processes know the server
    try:
        assert train(cut) == 0
    finally:
        ray.shutdown()
    rows = read_log(cut.store)
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in read_log(whole.store)], abs=1e-4)
    assert len(list(cut.store.keys("tensorboard/"))) >= 2
    assert list(cut.store.keys("sheets/")) == ["sheets/step-00000008.png"]
    trained = open_store("s3://test/weights").get("video/diffusion_pytorch_model.safetensors")
    assert trained != (tiny_pocket / "video" / "diffusion_pytorch_model.safetensors").read_bytes()
