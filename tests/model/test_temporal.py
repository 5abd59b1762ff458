"""Fine-tuning touches temporal parameters and nothing else (3.1)."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from model.temporal import freeze_spatial, is_temporal


class PocketLike(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(2, 2, 3, padding=1)
        self.temporal = nn.Conv1d(2, 2, 3, padding=1)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """[T,2,H,W] -> the same."""
        maps = self.spatial(frames)
        return maps + self.temporal(maps.mean((2, 3)).T[None])[0].T[:, :, None, None]


def unet_of(folder: Path, family: str) -> nn.Module:
    from diffusers import I2VGenXLUNet, UNetSpatioTemporalConditionModel

    part: Any = {"i2vgen-xl": I2VGenXLUNet, "svd": UNetSpatioTemporalConditionModel}[family]
    return part.from_pretrained(folder / "unet", use_safetensors=True)


def train_one_step(model: nn.Module, loss: torch.Tensor) -> dict[str, bool]:
    """One AdamW step over whatever may be trained; returns whether each parameter stayed bit-identical."""
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trainable, lr=1e-2)
    loss.backward()
    optimiser.step()
    return {name: torch.equal(parameter, before[name]) for name, parameter in model.named_parameters()}


def check(same: dict[str, bool], trained: list[str], family: Any) -> None:
    spatial = [name for name in same if name not in trained]
    assert spatial
    assert trained
    assert all(same[name] for name in spatial)
    moved = [name for name in trained if not same[name]]
    assert len(moved) > 0.9 * len(trained), sorted(set(trained) - set(moved))
    assert all(is_temporal(name, family) for name in moved)


def test_pocket() -> None:
    model = PocketLike()
    trained = freeze_spatial(model, "pocket")
    assert trained == ["temporal.weight", "temporal.bias"]
    check(train_one_step(model, model(torch.randn(4, 2, 5, 5)).square().mean()), trained, "pocket")


def test_i2vgen_xl(tiny_i2vgen_xl: Path) -> None:
    torch.manual_seed(0)
    model = unet_of(tiny_i2vgen_xl, "i2vgen-xl")
    trained = freeze_spatial(model, "i2vgen-xl")
    assert any(name.startswith("transformer_in.") for name in trained)
    assert not any(".resnets." in name or "image_latents" in name for name in trained)
    for name, parameter in model.named_parameters():  # temporal convolutions end in zeros and would block gradients
        if ".temp_convs." in name and ".conv4." in name:
            nn.init.normal_(parameter.data, std=0.1)
    output = model(
        torch.randn(1, 4, 4, 8, 8), torch.tensor(500), fps=torch.tensor([16]), image_latents=torch.randn(1, 4, 4, 8, 8),
        image_embeddings=torch.randn(1, 1, 16), encoder_hidden_states=torch.randn(1, 5, 16),
    ).sample  # fmt: skip
    check(train_one_step(model, output.square().mean()), trained, "i2vgen-xl")


def test_stable_video(tiny_stable_video: Path) -> None:
    torch.manual_seed(0)
    model = unet_of(tiny_stable_video, "svd")
    trained = freeze_spatial(model, "svd")
    assert not any("spatial_res_block" in name for name in trained)
    output = model(
        torch.randn(1, 4, 8, 8, 8), torch.tensor(0.5), torch.randn(1, 1, 16), added_time_ids=torch.ones(1, 3)
    ).sample
    check(train_one_step(model, output.square().mean()), trained, "svd")


def test_the_wrong_family_is_an_error(tiny_stable_video: Path) -> None:
    with pytest.raises(ValueError, match="no temporal parameters of family 'svd'"):
        freeze_spatial(PocketLike(), "svd")
    with pytest.raises(ValueError, match="available: pocket, i2vgen-xl, svd"):
        is_temporal("a.b", "emu")  # type: ignore[arg-type]
