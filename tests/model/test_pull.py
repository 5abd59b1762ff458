"""Pulling public weights, from a hub on this machine."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from model.catalogue import CATALOGUE
from model.pull import DIGESTS, check, main, pull
from model.weights import license_of, revision_of
from tests.model.fake_hub import COMMIT, FakeHub, fake_hub
from tests.model.sv3d_files import published, tiny_parts

WEIGHTS = save({"weight": torch.arange(200_000.0)})
CARD = b"---\nlicense: mit\n---\n"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with fake_hub() as found:
        found.repositories["ali-vilab/i2vgen-xl"] = {
            "README.md": CARD, "model_index.json": b'{"_class_name": "I2VGenXLPipeline"}',
            "unet/config.json": b"{}", "unet/diffusion_pytorch_model.safetensors": WEIGHTS,
            "unet/diffusion_pytorch_model.fp16.safetensors": b"variant", "unet/diffusion_pytorch_model.bin": b"pickle",
            "run.py": b"print('code')", "unet/other.ckpt": b"pickle",
        }  # fmt: skip
        yield found


def test_wanted_files_come_with_digests_and_nothing_else(hub: FakeHub, tmp_path: Path) -> None:
    folder = pull("i2vgen-xl", tmp_path / "i2vgen", hub=hub.address)
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names == {
        "README.md", "model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors", DIGESTS,
    }  # fmt: skip
    assert (folder / "unet/diffusion_pytorch_model.safetensors").read_bytes() == WEIGHTS
    record = json.loads((folder / DIGESTS).read_text())
    assert (record["hub_id"], record["revision"], record["license"]) == ("ali-vilab/i2vgen-xl", COMMIT, "mit")
    assert check(folder) == []
    asked = len(hub.asked)
    pull("i2vgen-xl", folder, hub=hub.address)
    assert len(hub.asked) == asked  # what is whole is not asked for again


def test_a_download_that_was_cut_off_goes_on_where_it_stopped(hub: FakeHub, tmp_path: Path) -> None:
    name = "unet/diffusion_pytorch_model.safetensors"
    hub.cut.add(name)
    with pytest.raises(RuntimeError, match="goes on where it stopped"):
        pull("i2vgen-xl", tmp_path / "i2vgen", hub=hub.address)
    assert "cut off" in check(tmp_path / "i2vgen")[0]
    hub.cut.clear()
    hub.asked.clear()
    pull("i2vgen-xl", tmp_path / "i2vgen", hub=hub.address)
    ranges = [wanted for file, wanted in hub.asked if file == name]
    assert ranges == [f"bytes={len(WEIGHTS) // 2}-"]
    assert [file for file, _ in hub.asked] == [name]
    assert check(tmp_path / "i2vgen") == []


def test_damage_is_named(hub: FakeHub, tmp_path: Path) -> None:
    folder = pull("i2vgen-xl", tmp_path / "i2vgen", hub=hub.address)
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    weights.write_bytes(WEIGHTS[:-1] + b"x")
    (folder / "model_index.json").unlink()
    (folder / "README.md").write_bytes(CARD + b"more")
    (folder / "extra.pt").write_bytes(b"pickle")
    assert check(folder) == [
        "README.md has 25 bytes instead of 21: pull again",
        "model_index.json is missing: pull again",
        "unet/diffusion_pytorch_model.safetensors is not what was pulled: pull again",
        "extra.pt is a pickle, which is never read: delete it",
    ]


def test_the_published_sv3d_becomes_a_folder_that_loads(hub: FakeHub, tmp_path: Path) -> None:
    from model.video import VideoConfig
    from model.video_models import view_plan

    data = save(published(tiny_parts(False)))
    card = b"---\nlicense: other\nlicense_name: sv3d-nc-community\n---\n"
    hub.repositories["stabilityai/sv3d"] = {"README.md": card, "sv3d_u.safetensors": data, "sv3d_p.safetensors": b"p"}
    with pytest.raises(ValueError, match=r"under sv3d-nc-community, .*: read it at .* pull with --accept-license"):
        pull("sv3d-u", tmp_path / "sv3d", hub=hub.address)
    folder = pull("sv3d-u", tmp_path / "sv3d", accept=True, hub=hub.address)
    assert {name for name, _ in hub.asked} == {"README.md", "sv3d_u.safetensors"}
    assert len(view_plan(VideoConfig(model=str(folder)))) == 21
    assert license_of(folder) == "sv3d-nc-community"
    assert revision_of(folder).startswith("sha256:")
    assert check(folder) == []
    assert not (tmp_path / "sv3d.download").exists()


def test_droplet3d_is_named_as_what_it_is(hub: FakeHub, tmp_path: Path) -> None:
    hub.repositories["DropletX/Droplet3D-5B"] = {
        "model_index.json": b'{"_class_name": "CogVideoXPipeline"}', "transformer/a.safetensors": WEIGHTS,
        "FLUX.1-Kontext-dev/flux.safetensors": b"other terms", "pytorch_lora_weights.safetensors": b"for flux",
    }  # fmt: skip
    folder = pull("droplet3d-5b", tmp_path / "droplet", hub=hub.address)
    assert json.loads((folder / "model_index.json").read_text())["_class_name"] == "Droplet3DPipeline"
    assert {name for name, _ in hub.asked} == {"model_index.json", "transformer/a.safetensors"}
    assert check(folder) == []


def test_refusals_of_the_hub_are_one_sentence(hub: FakeHub, tmp_path: Path) -> None:
    hub.repositories["Remade-AI/Rotate"] = {"rotate_20_epochs.bin": b"pickle"}
    hub.gated.add("stabilityai/stable-video-diffusion-img2vid")
    for name, message in {
        "svd": "accept its licence there with your account and set HF_TOKEN",
        "wan2.2-ti2v-5b": "the hub does not give Wan-AI/Wan2.2-TI2V-5B-Diffusers: check that it exists",
        "wan2.1-rotate": "has no safetensors of rotate_20_epochs.safetensors; pickled weights are never read",
    }.items():
        with pytest.raises(RuntimeError, match=message):
            pull(name, tmp_path / name, accept=True, hub=hub.address)
    with pytest.raises(RuntimeError, match=r"i2vgen-xl cannot be downloaded .* where there is network"):
        pull("i2vgen-xl", tmp_path / "none", hub="http://127.0.0.1:9")
    with pytest.raises(ValueError, match="model 'sdxxl' is not in the catalogue; there are sdxl, "):
        pull("sdxxl", tmp_path / "none")


def test_a_file_that_is_not_what_the_hub_says_is_deleted(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.pull.file_digest", lambda file: "0" * 64)
    with pytest.raises(RuntimeError, match="is not what the hub says, and was deleted: pull again"):
        pull("i2vgen-xl", tmp_path / "i2vgen", hub=hub.address)
    assert not (tmp_path / "i2vgen" / "unet/diffusion_pytorch_model.safetensors").exists()


def test_the_catalogue_wants_no_code_and_no_pickles(capsys: pytest.CaptureFixture[str]) -> None:
    names = ("x.py", "x.bin", "unet/x.pt", "unet/x.ckpt", "transformer/x.pth", "unet/x.msgpack", "vae/code.py")
    assert not [name for entry in CATALOGUE.values() for name in names if entry.wants(name)]
    assert CATALOGUE["sv3d-u"].wants("sv3d_u.safetensors")
    assert not CATALOGUE["sv3d-u"].wants("sv3d_p.safetensors")
    main(["list"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(CATALOGUE) + 1
    assert "sv3d-nc-community" in next(line for line in lines if line.startswith("sv3d-u"))
    assert "account needed" in next(line for line in lines if line.startswith("svd"))
    for words, message in (
        (["check", "/none"], "no digests.json"),
        (["a", "b"], "not in the catalogue"),
        ([], "usage"),
    ):
        with pytest.raises(SystemExit, match=message):
            main(words)
