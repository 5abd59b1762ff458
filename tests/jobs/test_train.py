"""Shards in, weights out: every target of `im3d train`, a few steps each."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import trimesh
from safetensors.torch import load_file

from factory.export import png
from factory.meshes import load_mesh, render_turntable
from factory.shards import load_turntables
from jobs.train import Train, run
from model.config import TrainConfig
from model.pocket.unet import PocketUNet

SHAPES = {"a red box": trimesh.creation.box((1, 1, 2)), "a ball": trimesh.creation.icosphere(subdivisions=2)}


def write_shards(folder, size=128, elevations=(0.2, 0.5)):
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, (caption, shape) in enumerate(SHAPES.items()):
        mesh = load_mesh(shape.export(file_type="glb"))
        for elevation in elevations:
            frames = render_turntable(mesh, elevation, size)
            rows.append({
                "asset_id": f"asset-{number}", "caption": caption, "split": "train", "elevation": elevation,
                "frames": [{"bytes": png(frame), "path": ""} for frame in frames],
            })  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), folder / f"part-{size}.parquet")
    return folder


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("shards"))


def test_shards_hold_what_was_rendered(shards):
    turntables = load_turntables(shards, "train")
    assert turntables.frames.shape == (2, 2, 16, 128, 128, 4)
    truth = render_turntable(load_mesh(SHAPES["a red box"].export(file_type="glb")), 0.5, 128)
    assert np.abs(turntables.frames[0, 1].numpy().astype(int) - truth).max() <= 1
    assert turntables.captions == ["a red box", "a ball"]
    assert turntables.elevations.tolist() == [[pytest.approx(0.2), pytest.approx(0.5)]] * 2


def test_unusable_folders_say_why(tmp_path, shards):
    with pytest.raises(ValueError, match="no turntable shards"):
        load_turntables(tmp_path)
    with pytest.raises(ValueError, match="no turntables of split 'val'"):
        load_turntables(shards, "val")
    mixed = write_shards(tmp_path / "mixed", 32)
    write_shards(mixed, 48)
    with pytest.raises(ValueError, match="mixes turntables"):
        load_turntables(mixed)


def test_generators_build_on_each_other(tmp_path, shards, monkeypatch):
    monkeypatch.setattr("model.pocket.recipes.WIDTHS", (32, 64))
    weights = tmp_path / "weights"
    for target in ("autoencoder", "image", "video", "temporal"):
        config = TrainConfig(num_steps=2, save_every=2, log_every=1)
        assert run(Train(target=target, shards=shards, weights=weights, runs=tmp_path / "runs", train=config)) == 0
        if target == "video":
            before = load_file(weights / "video" / "diffusion_pytorch_model.safetensors")
    after = load_file(weights / "video" / "diffusion_pytorch_model.safetensors")
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed
    assert all("temporal" in name for name in changed)
    assert PocketUNet.from_pretrained(weights / "video").config["temporal"] is True
    logged = [json.loads(line) for line in (tmp_path / "runs" / "image" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in logged] == [1, 2]


@pytest.mark.parametrize("target", ["elevation", "mask", "clip"])
def test_judges_and_estimators_learn(tmp_path, shards, target, monkeypatch):
    monkeypatch.setattr("jobs.train.CLIP_VIEWS", 64)
    monkeypatch.setattr("jobs.train.CLIP_BATCH", 16)
    steps = {"elevation": 60, "mask": 30, "clip": 6}[target]
    config = TrainConfig(num_steps=steps, save_every=100, log_every=1, warmup_steps=10)
    run(Train(target=target, shards=shards, weights=tmp_path, runs=tmp_path / "runs", train=config))
    assert (tmp_path / target / "model.safetensors").is_file()
    losses = [json.loads(line)["loss"] for line in (tmp_path / "runs" / target / "log.jsonl").read_text().splitlines()]
    assert np.mean(losses[-2:]) < np.mean(losses[:2])
