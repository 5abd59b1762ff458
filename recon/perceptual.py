"""Measure perceptual distances between images in the form of LPIPS (Zhang et al. 2018; 3.3): `load_perceptual`.

    d(x, y) = sum_q mean_hw sum_c w_qc (f_q(x) - f_q(y))_c^2,    f_q = Phi_q / |Phi_q|_c

``load_perceptual("pocket")`` is a small ImageNet trunk that lies in this repository;
``load_perceptual("vgg" | "alex" | "squeeze")`` are the networks of the `lpips` package with its calibrated
heads; their ImageNet trunks come from a file that the user names (torchvision's, or that of `recon.lpips_export`), and
are never downloaded.
Both offer the same two calls, so that a target's features are computed once and kept.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from recon.checkpoint import load_parameters, read_config
from recon.user_error import UserError

POCKET_WEIGHTS = Path(__file__).parent / "weights" / "perceptual"
TRUNK_FILES = {
    "vgg": "vgg16-397923af.pth",
    "alex": "alexnet-owt-7be5be79.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
}
"""What torchvision calls the ImageNet weights of each network of the `lpips` package."""
EXPORTED = "lpips.safetensors"
"""What a folder with the trunks that `recon.lpips_export` writes calls them."""


class PerceptualNetwork(Protocol):
    """What the losses need: features once per image, then distances between features."""

    def features(self, images: Tensor) -> list[Tensor]:
        """Unit-normalised features [B,C_q,H_q,W_q] of images [B,3,H,W] in [0,1]."""
        ...

    def distance(self, features: list[Tensor], target: list[Tensor]) -> Tensor:
        """The distance [B], >= 0, between two results of `features`."""
        ...


class MobileBlock(nn.Module):
    """One inverted residual block with batch norm folded into its convolutions."""

    def __init__(self, inputs: int, outputs: int, hidden: int, kernel: int, stride: int):
        super().__init__()
        self.expand = nn.Conv2d(inputs, hidden, 1) if hidden != inputs else None
        self.depthwise = nn.Conv2d(hidden, hidden, kernel, stride, kernel // 2, groups=hidden)
        self.project = nn.Conv2d(hidden, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Features [B,C,h,w] to the next ones, at half the size if the stride is 2."""
        y = F.relu6(self.expand(x)) if self.expand is not None else x
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self.residual else y


class MobileTrunk(nn.Module):
    """The first blocks of EfficientNet-Lite0 as a perceptual network.

    Args:
        config: ``mean``, ``std`` (of images in [0,1]), ``stem`` channels, ``blocks`` as lists of
            (inputs, outputs, hidden, kernel, stride), ``taps`` (0 is the stem, i block i) and one
            ``weights`` entry per tap.
    """

    def __init__(self, config: dict):
        super().__init__()
        self.mean, self.std = config["mean"], config["std"]
        self.taps, self.weights = config["taps"], config["weights"]
        self.stem = nn.Conv2d(3, config["stem"], 3, 2, 1)
        self.blocks = nn.ModuleList(MobileBlock(*block) for block in config["blocks"])

    def features(self, images: Tensor) -> list[Tensor]:
        """Unit features [B,C,h,w] of every tap, of images [B,3,H,W] in [0,1]."""
        x = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        x = F.relu6(self.stem(x))
        found = [_unit(x)] if 0 in self.taps else []
        for index, block in enumerate(self.blocks, start=1):
            x = block(x)
            if index in self.taps:
                found.append(_unit(x))
        return found

    def distance(self, features: list[Tensor], target: list[Tensor]) -> Tensor:
        """The weighted squared distance [B] of two lists of features."""
        layers = [(a - b).square().sum(1).mean((1, 2)) for a, b in zip(features, target, strict=True)]
        return torch.stack([w * d for w, d in zip(self.weights, layers, strict=True)]).sum(0)


class LpipsNetwork(nn.Module):
    """The `lpips` package's network and calibrated heads, split so that targets can be kept.

    Args:
        name: "vgg", "alex" or "squeeze".
        trunk: the trunk's parameters as torchvision names them; random without, which only tests want.

    Convolutions run in the trunk's dtype, `use_matrix_units` makes it bfloat16; features and distances are float32.
    """

    def __init__(self, name: str, trunk: dict[str, Tensor] | None = None):
        super().__init__()
        from recon.torchvision_shim import import_torchvision

        import_torchvision()
        import lpips

        self.metric = lpips.LPIPS(net=name, pnet_rand=True, verbose=False)
        self.dtype = torch.float32
        if trunk is not None:
            self._load_trunk(name, trunk)

    def use_matrix_units(self) -> None:
        """Convolve in bfloat16 from now on, where the processor has matrix units that multiply it."""
        if torch.cpu.get_capabilities().get("amx_bf16", False):
            self.dtype = torch.bfloat16
            self.metric.net.to(self.dtype, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def _load_trunk(self, name: str, trunk: dict[str, Tensor]) -> None:
        """`lpips` cuts torchvision's ``features.K`` into ``sliceN.K``."""
        wanted = {key: f"features.{key.split('.', 1)[1]}" for key in self.metric.net.state_dict()}
        missing = sorted(set(wanted.values()) - set(trunk))
        if missing:
            raise UserError(f"these are no ImageNet weights of {name!r}: {missing[0]} is missing; give torchvision's "
                            f"{TRUNK_FILES[name]}")  # fmt: skip
        self.metric.net.load_state_dict({key: trunk[source].float() for key, source in wanted.items()})

    def features(self, images: Tensor) -> list[Tensor]:
        """Unit features [B,C,h,w] of every layer, of images [B,3,H,W] in [0,1]."""
        x = self.metric.scaling_layer(2 * images - 1).to(self.dtype, memory_format=torch.channels_last)
        return [_unit(layer.float()) for layer in self.metric.net.forward(x)]

    def distance(self, features: list[Tensor], target: list[Tensor]) -> Tensor:
        """LPIPS [B] of two lists of features, by the calibrated heads."""
        pairs = zip(self.metric.lins, features, target, strict=True)
        return torch.stack([head((a - b).square()).mean((1, 2, 3)) for head, a, b in pairs]).sum(0)


def load_perceptual(
    name: str = "pocket", device: torch.device | str = "cpu", weights: str | Path = ""
) -> PerceptualNetwork:
    """Load a frozen perceptual network.

    Args:
        name: "pocket", "vgg", "alex" or "squeeze", or the path of a folder like the pocket one.
        weights: of the last three, the file of the trunk's ImageNet weights (torchvision's .pth, the same as
            .safetensors, or what `recon.lpips_export` wrote), or a folder that holds it; torch's cache is looked
            into if none is given.

    Raises:
        UserError: if `name` is none of these, or its weights are missing or another network's.
    """
    if name in TRUNK_FILES:
        network: LpipsNetwork | MobileTrunk = LpipsNetwork(name, _read_trunk(name, weights))
    else:
        folder = POCKET_WEIGHTS if name == "pocket" else Path(name)
        if not folder.is_dir():
            available = ", ".join(("pocket", *TRUNK_FILES))
            raise UserError(f"no perceptual network {name!r}; available: {available}, or a folder")
        network = MobileTrunk(read_config(folder, "perceptual network"))
        load_parameters(network, folder)
    return network.eval().requires_grad_(False).to(device)


def _read_trunk(name: str, weights: str | Path) -> dict[str, Tensor]:
    """The trunk's parameters as torchvision names them."""
    path = trunk_file(name, weights)
    if path.suffix != ".safetensors":
        return torch.load(path, map_location="cpu", weights_only=True)
    tensors = load_file(path)
    return {
        key.removeprefix(f"{name}."): value
        for key, value in tensors.items()
        if key.startswith((f"{name}.", "features."))
    }


def trunk_file(name: str, weights: str | Path = "") -> Path:
    """Where the weights of a network that is not embedded lie; arguments and errors as of `load_perceptual`."""
    if name not in TRUNK_FILES:
        return Path(name)
    path = Path(weights) if weights else Path(torch.hub.get_dir(), "checkpoints")
    tried = [path / EXPORTED, path / TRUNK_FILES[name]] if path.is_dir() or not path.suffix else [path]
    for file in tried:
        if file.is_file():
            return file
    raise UserError(f"the ImageNet weights of LPIPS {name!r} are not at {path}; put torchvision's "
                    f"{TRUNK_FILES[name]} there, or what python -m recon.lpips_export writes, name its path in "
                     'fit.loss.perceptual_weights, or set fit.loss.perceptual to "pocket"')  # fmt: skip


def _unit(features: Tensor) -> Tensor:
    return features / (features.square().sum(1, keepdim=True) + 1e-8).sqrt()
