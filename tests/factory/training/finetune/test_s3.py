"""Shards, choice, latents, weights, checkpoints and log on a real S3 server; a run cut there goes on by Ray Train."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from factory.storage.store import StorageConfig, open_store
from factory.training.finetune.driver import train
from factory.training.finetune.prepare import prepare
from factory.training.finetune.recorder import read_log
from factory.training.finetune.settings import WorkersConfig
from factory.training.finetune.worker import train_worker
from factory.training.shards.draw_order import plain_batches
from factory.training.shards.index import read_index
from jobs.curate import main as curate
from jobs.encode import main as encode
from model.checkpoints import Checkpoints
from model.config import TrainConfig
from model.parallel import World

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900), pytest.mark.usefixtures("s3")]


def upload(folder: Path, url: str) -> str:
    store = open_store(url)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            store.put(path.relative_to(folder).as_posix(), path.read_bytes())
    return url


@pytest.fixture
def ray_of_s3() -> Iterator[None]:
    """A new Ray, so that its processes know the server."""
    ray.shutdown()
    yield
    ray.shutdown()


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


@pytest.mark.usefixtures("ray_of_s3")
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
    assert train(cut) == 0
    rows = read_log(cut.store)
    assert [row["step"] for row in rows] == list(range(1, 9))
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in read_log(whole.store)], abs=1e-4)
    assert len(list(cut.store.keys("tensorboard/"))) >= 2
    assert list(cut.store.keys("sheets/")) == ["sheets/step-00000008.png"]
    trained = open_store("s3://test/weights").get("video/diffusion_pytorch_model.safetensors")
    assert trained != (tiny_pocket / "video" / "diffusion_pytorch_model.safetensors").read_bytes()


@pytest.mark.usefixtures("ray_of_s3")
def test_turntables_are_chosen_and_encoded_in_s3(tiny_shards: Path, tiny_pocket: Path, capsys) -> None:
    shards, weights = upload(tiny_shards, "s3://test/chosen"), upload(tiny_pocket, "s3://test/weights-of-chosen")
    assert curate(["--shards", f"{shards}/renders", "--best", "2", "--views", "1"]) == 0
    assert "2 of 4 training assets kept" in capsys.readouterr().out
    assert all(open_store(shards).get(name) for name in ("curated.parquet", "curated.html", "kept.png"))
    kept = read_index(shards, "train")
    assert encode(["--shards", shards, "--weights", weights, "--out", "s3://test/latents", "--variants", "1"]) == 0
    latents = read_index("s3://test/latents", "train")
    assert latents.encoder
    assert latents.captions.keys() == kept.captions.keys()
    assert len(latents) == len(kept)
    run = prepare("temporal", "s3://test/latents", weights, "s3://test/run-of-latents", "train", TrainConfig(),
                  WorkersConfig(), StorageConfig())  # fmt: skip
    assert next(plain_batches(run.reader(), 2)).encoded
