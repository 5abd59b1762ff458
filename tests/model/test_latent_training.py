"""The paper's families on tiny checkpoints: their own loss, temporal layers only, and a folder that generates."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.config import Share, TrainConfig, VideoConfig
from model.latent_training import StableVideoLoss, i2vgen_xl, stable_video
from model.pocket.data import Batch
from model.temporal import is_temporal
from model.training import Setting, Training
from model.video import load_video_model


def batch(seed: int = 0) -> Batch:
    frames = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (2, 16, 16, 16, 4), np.uint8))
    return Batch(frames=frames, captions=["a cup", "a car"], azimuths=torch.zeros(2, 16), elevations=torch.zeros(2))


def setting(folder: Path, name: str, tmp_path: Path, **config: Any) -> Setting:
    weights = tmp_path / "weights"
    weights.mkdir(exist_ok=True)
    if not (weights / name).exists():
        (weights / name).symlink_to(folder)
    train = TrainConfig(num_steps=2, learning_rate=1e-2, warmup_steps=1, precision="float32", **config)
    return Setting(weights=weights, config=train, captions=[], size=16, scratch=tmp_path)


@pytest.mark.parametrize(
    ("make", "name", "checkpoint"),
    [(i2vgen_xl, "i2vgen-xl", "tiny_i2vgen_xl"), (stable_video, "svd", "tiny_stable_video")],
)
def test_only_temporal_layers_move_and_the_result_generates(make, name, checkpoint, request, tmp_path) -> None:
    chosen = setting(request.getfixturevalue(checkpoint), name, tmp_path)
    torch.manual_seed(0)
    recipe = make(chosen)
    before = {key: value.clone() for key, value in recipe.loss.state_dict().items()}
    training = Training(recipe, chosen.config, Share.of(chosen.config, 2, 1))
    for step in range(2):
        training.advance(iter([batch(step)]))
    moved = {key for key, value in recipe.loss.state_dict().items() if not torch.equal(value, before[key])}
    assert moved
    assert all(key.startswith("unet.") and is_temporal(key.removeprefix("unet."), name) for key in moved)
    recipe.save(tmp_path / "made")
    config = VideoConfig(model=str(tmp_path / "made" / f"{name}-turntable"), steps=2, guidance_scale=2.0, device="cpu")
    images = np.zeros((1, 16, 16, 3), np.uint8)
    assert load_video_model(config).generate(images, ["a cup"], [0]).shape == (1, 16, 16, 16, 3)


def test_a_perfect_velocity_costs_nothing(tiny_stable_video: Path, tmp_path: Path) -> None:
    """EDM's clean latents from the network's output must be the clean ones when the loss is zero."""
    loss = stable_video(setting(tiny_stable_video, "svd", tmp_path)).loss
    assert isinstance(loss, StableVideoLoss)
    clean, seen = torch.randn(3, 16, 4, 8, 8), {}

    def predict(scaled: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        sigma = (4 * level).exp().view(-1, 1, 1, 1, 1)
        noisy = scaled * (sigma**2 + 1).sqrt()
        velocity = ((noisy - clean) / sigma - sigma * clean) / (sigma**2 + 1).sqrt()
        seen["clean"] = noisy / (sigma**2 + 1) - sigma / (sigma**2 + 1).sqrt() * velocity
        return velocity

    error, _ = loss.error(predict, clean, torch.Generator().manual_seed(0))
    assert error.item() < 1e-6
    assert torch.allclose(seen["clean"], clean, atol=1e-4)
