"""Fine-tuning SV3D and a LoRA of Wan on tiny checkpoints of the real classes: three steps, then generate with it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from model.config import Share, TrainConfig, VideoConfig
from model.latent_training import sv3d
from model.pocket.data import Batch
from model.sv3d_conversion import convert
from model.temporal import is_temporal
from model.training import Recipe, Setting, Training
from model.video import load_video_model, view_plan
from model.wan_lora_training import wan_lora
from recon.user_error import UserError
from tests.model.sv3d_files import published, tiny_parts, write_published
from tests.model.video_checkpoints import write_wan


def batch(views: int, size: int, seed: int = 0) -> Batch:
    pixels = np.random.default_rng(seed).integers(0, 256, (1, views, size, size, 4), np.uint8)
    return Batch(frames=torch.from_numpy(pixels), captions=["a cup"], azimuths=torch.zeros(1, views),
                 elevations=torch.zeros(1))  # fmt: skip


def trained(make: Any, weights: Path, views: int, size: int, scratch: Path, **config: Any) -> tuple[Recipe, set[str]]:
    """The recipe after three steps, and the parameters that have moved."""
    train = TrainConfig(num_steps=3, learning_rate=1e-2, warmup_steps=1, precision="float32", **config)
    torch.manual_seed(0)
    recipe = make(Setting(weights=weights, config=train, captions=[], size=size, scratch=scratch))
    before = {key: value.clone() for key, value in recipe.loss.state_dict().items()}
    training = Training(recipe, train, Share.of(train, 1, 1))
    for step in range(3):
        training.advance(iter([batch(views, size, step)]))
    after = recipe.loss.state_dict()
    return recipe, {key for key, value in after.items() if not torch.equal(value, before[key])}


def test_sv3d_trains_its_temporal_layers_and_generates(tmp_path: Path) -> None:
    convert(write_published(tmp_path / "file.safetensors", published(tiny_parts(False))), tmp_path / "sv3d")
    recipe, moved = trained(sv3d, tmp_path, 21, 32, tmp_path)
    assert moved
    assert all(key.startswith("unet.") and is_temporal(key.removeprefix("unet."), "svd") for key in moved)
    recipe.save(tmp_path / "made")
    config = VideoConfig(model=str(tmp_path / "made" / "sv3d-turntable"), steps=1, size=32, device="cpu")
    model = load_video_model(config)
    assert model.generate(np.zeros((1, 32, 32, 3), np.uint8), [""], [0]).shape == (1, 21, 32, 32, 3)
    assert len(model.views) == 21


def test_sv3ds_loss_has_the_pictures_view_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert(write_published(tmp_path / "file.safetensors", published(tiny_parts(False))), tmp_path / "sv3d")
    setting = Setting(weights=tmp_path, config=TrainConfig(), captions=[], size=32, scratch=tmp_path)
    loss: Any = sv3d(setting).loss
    native = torch.arange(21.0).view(1, 21, 1, 1, 1)
    monkeypatch.setattr(loss.families[0], "denoiser", lambda *_: lambda noisy, timestep: noisy * 0 + native)
    predict = loss.denoiser(torch.zeros(1, 3, 32, 32), [""], torch.ones(1), [0])
    given = torch.zeros(1, 21, 4, 4, 4)
    assert predict(given, torch.tensor(0.0))[0, :, 0, 0, 0].tolist() == [20, *range(20)]


@pytest.mark.parametrize("kind", ["2.1", "5b"])
def test_a_lora_of_wan_trains_and_generates(kind: str, tmp_path: Path) -> None:
    write_wan(tmp_path / "wan", kind)
    recipe, moved = trained(wan_lora, tmp_path, 80, 32, tmp_path, lora_rank=2, lora_alpha=4.0)
    assert moved == {name for name, _ in recipe.loss.named_parameters() if name.startswith("low_rank.")}
    recipe.save(tmp_path)
    tensors = load_file(tmp_path / "wan-lora" / "lora.safetensors")
    assert tensors["diffusion_model.blocks.0.self_attn.q.lora_A.weight"].shape == (2, 24)
    assert tensors["diffusion_model.blocks.1.ffn.2.lora_B.weight"].shape == (24, 2)
    assert tensors["diffusion_model.blocks.0.cross_attn.o.alpha"].item() == 4.0
    plain = VideoConfig(model=str(tmp_path / "wan"), frames=9, steps=1, guidance_scale=1.0, size=32, device="cpu")
    images = np.full((1, 32, 32, 3), 90, np.uint8)
    made = load_video_model(VideoConfig(**(_fields(plain) | {"lora": str(tmp_path / "wan-lora")})))
    video = made.generate(images, ["a cup"], [0])
    assert video.shape == (1, 9, 32, 32, 3)
    assert not np.array_equal(video, load_video_model(plain).generate(images, ["a cup"], [0]))
    assert made.license == "apache-2.0 + apache-2.0"
    assert not made.views.exact  # nine frames are none of those that it was trained on
    views = view_plan(VideoConfig(**(_fields(plain) | {"lora": str(tmp_path / "wan-lora"), "frames": None})))
    assert (len(views), views.exact, views.chosen) == (81, True, tuple(range(0, 80, 4)))
    one = VideoConfig(model=str(tmp_path / "wan"), lora=str(tmp_path / "wan-lora" / "lora.safetensors"), size=32)
    assert view_plan(one) == views
    assert not view_plan(VideoConfig(model=str(tmp_path / "wan"))).exact


def _fields(config: VideoConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in VideoConfig.__dataclass_fields__}


def test_the_written_lora_is_what_was_trained(tmp_path: Path) -> None:
    """The network with the file merged answers as the one that was trained, up to the file's half precision."""
    write_wan(tmp_path / "wan", "2.1")
    recipe, _ = trained(wan_lora, tmp_path, 80, 32, tmp_path, lora_rank=2, lora_alpha=4.0)
    loss: Any = recipe.loss
    recipe.save(tmp_path)
    config = VideoConfig(model=str(tmp_path / "wan"), lora=str(tmp_path / "wan-lora"), device="cpu", frames=81,
                         guidance_scale=1.0)  # fmt: skip
    merged: Any = load_video_model(config)
    trained_layer = loss.families[0].network.blocks[0].attn1.to_q
    merged_layer = merged.network.blocks[0].attn1.to_q
    inputs = torch.randn(3, 24, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(trained_layer(inputs), merged_layer(inputs), atol=2e-3)
    assert not torch.allclose(trained_layer.weight, merged_layer.weight, atol=1e-6)


def test_two_networks_are_refused(tmp_path: Path) -> None:
    write_wan(tmp_path / "wan", "2.2")
    setting = Setting(weights=tmp_path, config=TrainConfig(), captions=[], size=32, scratch=tmp_path)
    with pytest.raises(UserError, match=r"two networks want a LoRA each; take Wan 2\.1 I2V or TI2V-5B"):
        wan_lora(setting)
