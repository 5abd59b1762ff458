"""`im3d weights`: list, pull, check."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.weights import main
from tests.model.fake_hub import FakeHub, fake_hub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with fake_hub() as found:
        found.repositories["ali-vilab/i2vgen-xl"] = {
            "README.md": b"---\nlicense: mit\n---\n", "model_index.json": b"{}",
            "unet/diffusion_pytorch_model.safetensors": b"0" * 2_000_000,
        }  # fmt: skip
        found.repositories["stabilityai/stable-video-diffusion-img2vid"] = {
            "model_index.json": b"{}", "unet/diffusion_pytorch_model.safetensors": b"0",
        }  # fmt: skip
        yield found


def test_the_list_says_what_the_hub_says(hub: FakeHub, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("jobs.weights._names", lambda preset: ["i2vgen-xl", "svd", "wan2.2-ti2v-5b"])
    hub.tells["ali-vilab/i2vgen-xl"] = {"cardData": {"license": "other", "license_name": "new-terms"}, "gated": "auto"}
    assert main(["list", "--hub", hub.address]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["i2vgen-xl", "video", "0.00", "new-terms", "needed", "ali-vilab/i2vgen-xl"]
    assert lines[3].split()[:4] == ["svd", "video", "0.00", "unknown"]
    assert "the hub does not answer here" in lines[-1]  # it has no Wan


def test_offline_the_list_knows_what_the_catalogue_knows(capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["list", "--offline"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()[2:]}
    assert "sv3d-nc-community" in rows["sv3d-u"]
    assert "9.36" in rows["sv3d-u"]
    assert "unknown" in rows["svd"]
    assert main(["list", "--preset", "paper", "--offline"]) == 0
    assert capsys.readouterr().out.splitlines()[2].split()[0] == "sdxl"
    assert main(["list", "--preset", "pocket"]) == 0
    assert "embedded networks alone" in capsys.readouterr().out


def test_pull_then_check(hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pull = ["pull", "i2vgen-xl", "svd", "--to", str(tmp_path), "--hub", hub.address]
    assert main(pull) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: read the licences of svd (unknown, https://huggingface.co/stabilityai/")
    assert captured.err.endswith("and pull with --accept-license svd\n")
    assert not any(tmp_path.iterdir())  # refused before the first download
    assert main([*pull, "--accept-license", "svd"]) == 0
    assert "i2vgen-xl is whole, under mit" in capsys.readouterr().out
    assert main(pull) == 0  # accepted before
    capsys.readouterr()
    assert main(["check", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == ["i2vgen-xl: whole", "svd: whole"]
    (tmp_path / "svd" / "model_index.json").unlink()
    assert main(["check", str(tmp_path / "svd")]) == 1
    assert capsys.readouterr().out == "svd: model_index.json is missing: pull again\n"


def test_refusals_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in {
        ("pull", "--to", "x"): "name networks to pull",
        ("pull", "sdx", "--to", "x"): "model 'sdx' is not in the catalogue; did you mean sdxl?",
        ("check", str(tmp_path / "none")): "holds no networks: im3d weights pull",
        ("check", "gs://bucket"): "scheme not supported",
    }.items():
        assert main(list(words)) == 2
        error = capsys.readouterr().err
        assert message in error
        assert len(error.splitlines()) == 1
