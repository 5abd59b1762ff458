import math

import numpy as np
import pytest
import torch

from recon.elevation import (
    MAX_ELEVATION,
    ElevationConfig,
    ElevationNetwork,
    elevation_loss,
    load_elevation,
    prepare,
)


def discs_from(elevations: np.ndarray, size: int = 32) -> np.ndarray:
    """Turntables uint8 [B,16,S,S,3] of a flat disc, whose outline is an ellipse of axis ratio sin(elevation)."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    frames = np.full((len(elevations), 16, size, size, 3), 255, np.uint8)
    for video, elevation in zip(frames, elevations, strict=True):
        inside = x**2 + (y / max(math.sin(elevation), 0.02)) ** 2 < (0.4 * size) ** 2
        video[:, inside] = (200, 40, 40)
    return frames


@pytest.fixture(scope="module")
def trained() -> ElevationNetwork:
    torch.manual_seed(0)
    network = ElevationNetwork(ElevationConfig(size=32, channels=(16, 32, 32), hidden=32))
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    random = np.random.default_rng(0)
    for _ in range(250):
        angles = random.uniform(0, MAX_ELEVATION, 16)
        optimizer.zero_grad()
        elevation_loss(network, prepare(discs_from(angles), 32), torch.tensor(angles).float()).backward()
        optimizer.step()
    return network


def test_learns_elevation_from_the_outline(trained):
    angles = np.linspace(0.05, 0.75, 9)
    errors = [abs(trained.estimate(video) - angle) for video, angle in zip(discs_from(angles), angles, strict=True)]
    assert np.mean(errors) < math.radians(3), errors


def test_estimate_stays_within_the_training_range(trained):
    random = np.random.default_rng(1)
    for _ in range(5):
        found = trained.estimate(random.integers(0, 256, (16, 40, 24, 4), np.uint8))
        assert 0 <= found <= MAX_ELEVATION


def test_saved_network_gives_the_same_angle(trained, tmp_path):
    trained.save(tmp_path)
    video = discs_from(np.array([0.4]))[0]
    assert load_elevation(tmp_path).estimate(video) == pytest.approx(trained.estimate(video), abs=0.005)


def test_prepare_takes_the_four_quarter_turns():
    frames = np.arange(16, dtype=np.uint8)[None, :, None, None, None] * np.ones((1, 1, 16, 16, 3), np.uint8)
    assert (prepare(frames, 16)[0, :, 0, 0, 0] * 255).round().tolist() == [0, 4, 8, 12]


@pytest.mark.parametrize("shape", [(3, 32, 32, 3), (16, 32, 32), (16, 32, 32, 1)])
def test_wrong_frames_are_refused(trained, shape):
    with pytest.raises(ValueError, match="uint8"):
        trained.estimate(np.zeros(shape, np.uint8))


def test_missing_weights_and_bad_config_are_named(tmp_path):
    with pytest.raises(ValueError, match="no elevation network"):
        load_elevation(tmp_path)
    with pytest.raises(ValueError, match="size must be >= 16"):
        ElevationConfig(size=8)
