"""The paper's elevation estimator on a tiny random DINOv2."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from factory.config.settings import ViewsConfig
from factory.stages.dino_elevation import DinoElevation, load_backbone, load_estimator
from factory.stages.find_views import ViewFinder
from recon.config import OrbitConfig
from recon.elevation import ElevationNetwork, elevation_loss, prepare
from recon.torchvision_shim import import_torchvision


def discs_from(elevations: np.ndarray, size: int = 32) -> np.ndarray:
    """Turntables uint8 [B,4,S,S,3] of a flat disc, whose outline is an ellipse of axis ratio sin(elevation)."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    inside = x**2 + (y / np.sin(elevations)[:, None, None]) ** 2 < (0.4 * size) ** 2
    frames = np.where(inside[..., None], (200, 40, 40), 255).astype(np.uint8)
    return frames[:, None].repeat(4, 1)


def test_dino_estimator_learns_by_its_mlp_alone_and_is_kept_whole(tmp_path):
    import_torchvision()
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "patch_size": 4,
        "image_size": 16,
    }
    Dinov2Model(Dinov2Config(**sizes)).save_pretrained(tmp_path / "dino")
    network = DinoElevation(load_backbone(tmp_path / "dino"), size=16, hidden=32).train()
    trained = [name for name, p in network.named_parameters() if p.requires_grad]
    assert trained == ["mlp.0.weight", "mlp.0.bias", "mlp.2.weight", "mlp.2.bias"]
    angles = np.linspace(0.05, 0.75, 12)
    frames, truth = prepare(discs_from(angles), 16), torch.tensor(angles).float()
    optimizer, losses = torch.optim.Adam(network.mlp.parameters(), 1e-2), []
    for _ in range(60):
        optimizer.zero_grad()
        losses.append(elevation_loss(network, frames, truth))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1].item() < 0.3 * truth.var().item()
    network.save(tmp_path / "elevation")
    video = discs_from(np.array([0.4]))[0]
    loaded = load_estimator(tmp_path / "elevation")
    assert isinstance(loaded, DinoElevation)
    assert loaded.estimate(video) == pytest.approx(network.estimate(video), abs=0.005)
    same = prepare(video[None, [0, 0, 0, 0]], 16)
    assert network(same).item() == pytest.approx(network(same[:, :1]).item(), abs=1e-5)


def test_either_kind_is_found_by_its_folder(tmp_path: Path) -> None:
    assert isinstance(load_estimator("pocket"), ElevationNetwork)
    with pytest.raises(ValueError, match="no elevation network"):
        load_estimator(tmp_path)


def test_the_line_computes_it_where_its_stage_runs() -> None:
    finder = ViewFinder(ViewsConfig(), OrbitConfig(), "meta")
    assert finder.estimator is not None
    assert {parameter.device.type for parameter in finder.estimator.parameters()} == {"meta"}
