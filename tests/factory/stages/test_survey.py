"""What stages need of machines is looked for there before anything starts, and told with the way to get it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import ray
import torch
from ray.cluster_utils import Cluster
from safetensors.torch import save_file

from factory.config.settings import FactoryConfig, ViewsConfig, preset
from factory.line.placement import Pool
from factory.line.settings import LineConfig
from factory.stages.chain import pools_of, stages_of
from factory.stages.preflight import find_networks, preflight, weights_of
from factory.stages.survey import Need, check_shared_card, look, refuse_missing
from factory.weights.folder import resolved
from model.config import ImageConfig, VideoConfig
from model.parts import card_bytes
from recon.loss_weights import LossConfig
from recon.user_error import UserError
from tests.model.video_checkpoints import write_wan

SDXL = "stabilityai/stable-diffusion-xl-base-1.0"


def config_of(weights: Path | str, **line: str) -> FactoryConfig:
    """SDXL from the folder `weights`, everything else embedded."""
    image = ImageConfig(model=SDXL, size=128, device="cpu")
    return replace(preset("pocket"), image=image, weights=str(weights), line=LineConfig(**line))  # type: ignore[arg-type]


def needs_of(config: FactoryConfig) -> dict[str, Need]:
    config = resolved(config)
    return {need.name: need for need in look(stages_of(config.chain), config, pools_of(config))}


def test_a_missing_network_is_told_with_the_command_that_brings_it(
    tiny_sdxl: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(tmp_path)
    wanted = f"im3d weights pull sdxl --to {tmp_path} --accept-license sdxl"
    with pytest.raises(RuntimeError, match=rf"{tmp_path}/sdxl.* is not a folder.*: {wanted}$"):
        preflight(config)
    table = capsys.readouterr().out
    assert "missing" in table
    assert "judge" in table
    shutil.copytree(tiny_sdxl, tmp_path / "sdxl")
    assert weights_of(find_networks(config))["image"].startswith("sha256:")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "unet" / "x.safetensors.part").write_bytes(b""), "is half downloaded"),
        (lambda folder: [f.rename(f.with_suffix(".bin")) for f in folder.rglob("*.safetensors")], "only pickled"),
        (lambda folder: [f.unlink() for f in folder.rglob("*.safetensors")], "holds no \\*.safetensors"),
        (lambda folder: (folder / "model_index.json").write_text("{}"), "model_index.json has 2 bytes instead of"),
        (lambda folder: (folder / "model_index.json").unlink(), "neither config.json nor model_index.json"),
    ],
    ids=["half", "pickled", "empty", "changed", "no index"],
)
def test_weights_that_are_not_whole_are_one_sentence(tiny_sdxl: Path, tmp_path: Path, spoil, message: str) -> None:
    folder = Path(shutil.copytree(tiny_sdxl, tmp_path / "sdxl"))
    index = folder / "model_index.json"
    digests = {"files": {"model_index.json": {"size": index.stat().st_size, "sha256": ""}}}
    (folder / "digests.json").write_text(json.dumps(digests))
    spoil(folder)
    with pytest.raises(RuntimeError, match=message) as caught:
        preflight(config_of(tmp_path))
    assert len(str(caught.value).splitlines()) == 1
    assert "im3d weights pull sdxl" in str(caught.value)


def test_a_card_that_is_too_small_is_told_before_anything_is_loaded(
    tiny_sdxl: Path, tiny_i2vgen_xl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_i2vgen_xl, tmp_path / "i2vgen-xl")
    config = preset("paper")
    config.weights = str(tmp_path)
    config.video = VideoConfig(model="i2vgen-xl", device="cuda", offload="parts")
    assert "no CUDA GPU is visible" in (needs_of(config)["GPU"].problem or "")
    monkeypatch.setattr("factory.stages.survey._require_cuda", lambda: None)
    for size, problem in ((1_000, "take a larger GPU"), (10**9, None)):
        monkeypatch.setattr("factory.stages.survey._card_bytes", lambda size=size: size)
        found = needs_of(config)
        assert found["GPU"].problem is None
        assert problem in (found["video"].problem or "") if problem else found["video"].problem is None


def test_stages_that_share_a_card_must_fit_it_together() -> None:
    pools = {"image": Pool(gpus=0.16), "video": Pool(gpus=0.5), "reconstruct": Pool(gpus=0.5), "score": Pool(gpus=1)}
    held = {"image": 7 << 30, "video": 44 << 30, "reconstruct": 44 << 30, "score": 60 << 30}
    check_shared_card(held, pools, 88 << 30)
    wanted = r"video and reconstruct hold 88\.0 GiB together, .* a card of 80\.0 GiB: give one a whole card, as "
    with pytest.raises(UserError, match=wanted + r"--line\.pools reconstruct=1gpu"):
        check_shared_card(held, pools, 80 << 30)
    check_shared_card(held, pools | {"video": Pool(gpus=1)}, 60 << 30)
    check_shared_card({"image": 7 << 30}, pools, 8 << 30)


def test_the_sum_is_told_before_anything_is_loaded(
    tiny_sdxl: Path, tiny_i2vgen_xl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_sdxl, tmp_path / "sdxl")
    shutil.copytree(tiny_i2vgen_xl, tmp_path / "i2vgen-xl")
    config = preset("paper")
    config.weights, config.video = str(tmp_path), VideoConfig(model="i2vgen-xl", device="cuda")
    sizes = [card_bytes(tmp_path / name) for name in ("sdxl", "i2vgen-xl", "i2vgen-xl")]
    monkeypatch.setattr("factory.stages.survey._require_cuda", lambda: None)
    for card, problem in ((sum(sizes) - 1, "image and video and reconstruct hold"), (sum(sizes), None)):
        monkeypatch.setattr("factory.stages.survey._card_bytes", lambda card=card: card)
        found = needs_of(config).get("GPU memory")
        assert (found is None) == (problem is None)
        assert found is None or problem in str(found.problem)


def test_single_files_that_are_cut_off_are_told_before_anything_is_paid_for(tmp_path: Path) -> None:
    file = tmp_path / "isnet" / "isnet-general-use.onnx"
    file.parent.mkdir()
    file.write_bytes(b"\x08\x07not whole")
    config = preset("pocket")
    config.views = ViewsConfig(masks=str(file))
    assert "is no ONNX network that onnxruntime can load" in str(needs_of(config)["masks"].problem)
    (file.parent / "digests.json").write_text(json.dumps({"files": {file.name: {"size": 178_648_008}}}))
    assert "has 11 bytes instead of 178648008" in str(needs_of(config)["masks"].problem)
    trunk = tmp_path / "lpips.safetensors"
    for name in (trunk, tmp_path / "vgg16.pth"):
        name.write_bytes(b"\x08\0\0\0\0\0\0\0{")
        config.fit = replace(config.fit, loss=LossConfig(perceptual="vgg", perceptual_weights=str(name)))
        assert "holds no whole network" in str(needs_of(config)["perceptual"].problem)


def test_one_name_with_two_contents_is_refused() -> None:
    there = Need(stage="image", name="image", address="w/sdxl", machine="10.0.0.1", revisions={"image": "a"})
    refuse_missing([there, replace(there, machine="10.0.0.2")], None)
    with pytest.raises(ValueError, match=r"another one on 10\.0\.0\.2 than on 10\.0\.0\.1: copy the same files"):
        refuse_missing([there, replace(there, machine="10.0.0.2", revisions={"image": "b"})], None)


@pytest.mark.slow
def test_every_node_is_asked_and_the_one_that_lacks_the_folder_is_named(
    tiny_sdxl: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nodes of one machine with a home each, as the folder is below ~."""
    homes = [tmp_path / "one", tmp_path / "two"]
    for home in homes:
        home.mkdir()
    shutil.copytree(tiny_sdxl, homes[0] / "weights" / "sdxl")
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 80 << 20})
    try:
        for home in homes:
            made.add_node(num_cpus=8, object_store_memory=80 << 20, env_vars={"HOME": str(home)})
        ray.init(made.address, logging_level="ERROR", log_to_driver=False)
        config = config_of("~/weights", address="auto")
        wanted = r"~/weights/sdxl.* on \S+: im3d weights pull sdxl --to ~/weights --accept-license sdxl$"
        with pytest.raises(RuntimeError, match=wanted):
            find_networks(config)
        assert capsys.readouterr().out.count("missing") == 1
        shutil.copytree(tiny_sdxl, homes[1] / "weights" / "sdxl")
        assert weights_of(find_networks(config))["image"].startswith("sha256:")
    finally:
        ray.shutdown()
        made.shutdown()


def test_weights_that_do_not_go_together_are_refused_before_anything_is_loaded(tiny_sdxl: Path, tmp_path: Path) -> None:
    wan, lora = write_wan(tmp_path / "wan", "2.1"), tmp_path / "turn.safetensors"
    save_file({"unet.down_blocks.0.lora_A.weight": torch.ones(2, 2)}, lora)
    config = replace(preset("pocket"), video=VideoConfig(model=str(wan), lora=str(lora), device="cpu"))
    needs = needs_of(config)
    assert needs["video"].problem is None
    assert "which are no LoRA keys of this network: it is another family's" in str(needs["LoRA"].problem)
    config = replace(preset("pocket"), video=VideoConfig(model=str(tiny_sdxl), device="cpu"))
    assert "StableDiffusionXLPipeline" in str(needs_of(config)["video"].problem)
