import numpy as np
import pytest
import torch

from recon.masks import MaskConfig, MaskNetwork, PocketMasker, mask_loss, masks_of


def discs(count: int, height: int = 64, width: int = 64, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Coloured discs on white uint8 [N,H,W,3] and their coverage uint8 [N,H,W]."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    frames, masks = np.full((count, height, width, 3), 255, np.uint8), np.zeros((count, height, width), np.uint8)
    for frame, mask in zip(frames, masks, strict=True):
        cx, cy, radius = random.uniform([0.3 * width, 0.3 * height, 8], [0.7 * width, 0.7 * height, 20])
        inside = (x - cx) ** 2 + (y - cy) ** 2 < radius**2
        frame[inside], mask[inside] = random.integers(0, 200, 3), 255
    return frames, masks


@pytest.fixture(scope="module")
def trained() -> MaskNetwork:
    torch.manual_seed(0)
    network = MaskNetwork(MaskConfig(channels=(8, 16, 24)))
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for step in range(150):
        frames, masks = discs(8, seed=step)
        rgb = torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255
        optimizer.zero_grad()
        mask_loss(network, rgb, torch.from_numpy(masks).float() / 255).backward()
        optimizer.step()
    return network


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float(((a > 127) & (b > 127)).sum() / ((a > 127) | (b > 127)).sum())


def test_trained_network_finds_discs_it_has_not_seen(trained):
    frames, masks = discs(16, seed=10_000)
    assert iou(masks_of(frames, PocketMasker(trained)), masks) > 0.95


@pytest.mark.parametrize("size", [(1, 1), (17, 33), (64, 40), (100, 100)])
def test_any_size_keeps_its_shape(trained, size):
    frames = np.full((2, *size, 3), 255, np.uint8)
    assert PocketMasker(trained)(frames).shape == (2, *size)


def test_saved_network_gives_the_same_masks(trained, tmp_path):
    frames, _ = discs(4, seed=77)
    masker = PocketMasker(trained)
    masker.save(tmp_path)
    loaded = PocketMasker.load(tmp_path)
    assert np.abs(loaded(frames).astype(int) - masker(frames)).max() <= 4
    assert loaded.network.config == trained.config


def test_default_network_has_the_promised_size():
    assert 100_000 < sum(value.numel() for value in MaskNetwork().parameters()) < 300_000


def test_alpha_channel_is_the_mask_whatever_the_masker():
    frames, masks = discs(3)
    rgba = np.concatenate([frames, masks[..., None]], -1)
    assert (masks_of(rgba) == masks).all()
    assert (masks_of(rgba, lambda frames: np.zeros(0)) == masks).all()


def test_errors_say_what_to_do(tmp_path):
    frames, _ = discs(1)
    with pytest.raises(ValueError, match="give RGBA frames or a masker"):
        masks_of(frames)
    with pytest.raises(ValueError, match="float64"):
        masks_of(frames.astype(float))
    with pytest.raises(ValueError, match=r"config\.json and model\.safetensors missing"):
        PocketMasker.load(tmp_path)
    with pytest.raises(ValueError, match="two or more"):
        MaskConfig(channels=(8,))


def test_unfit_parameters_are_not_written(tmp_path):
    network = MaskNetwork(MaskConfig(channels=(8, 8)))
    torch.nn.init.constant_(network.head[1].bias, float("nan"))
    with pytest.raises(ValueError, match=r"head\.1\.bias"):
        PocketMasker(network).save(tmp_path)
    assert list(tmp_path.iterdir()) == []
