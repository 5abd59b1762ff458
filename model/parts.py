"""Load the networks of a pipeline's folder and move each between devices: `load_parts`, `Parts`."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from model.config import Offload, Storage
from model.weights import read_json
from recon.user_error import UserError

_VARIANT = re.compile(r"\.(fp16|bf16|non_ema)[.-]")
"""In the names of files that a loader takes only where it is asked for that variant."""


def load_parts(
    folder: Path, classes: Mapping[str, Any], dtype: torch.dtype, float32: Collection[str] = ()
) -> dict[str, nn.Module]:
    """The networks in the subfolders of a pipeline's folder, for inference, in main memory.

    Args:
        classes: subfolder to the class (of diffusers or transformers) that reads it.
        float32: subfolders that are read in float32 whatever `dtype` is.

    Raises:
        UserError: if one is missing or not in safetensors.
    """
    modules = {}
    for name, kind in classes.items():
        read_json(folder / name / "config.json")
        wanted = torch.float32 if name in float32 else dtype
        try:
            module = kind.from_pretrained(folder / name, dtype=wanted, use_safetensors=True)
        except (OSError, ValueError) as error:
            raise UserError(f"{folder / name} has no {kind.__name__} in safetensors: {error}") from error
        modules[name] = module.requires_grad_(False).eval()
    return modules


def check_room(
    networks: Mapping[str, nn.Module], sampled: Collection[str], offload: Offload, storage: Storage, free: int
) -> None:
    """Raise RuntimeError where the weights that lie on a device at once are more than its `free` bytes."""
    sizes = {name: sum(parameter.nbytes for parameter in part.parameters()) for name, part in networks.items()}
    if storage == "float8":
        sizes |= {name: sum(parameter.numel() for parameter in networks[name].parameters()) for name in sampled}
    _refuse_larger(sizes, sampled, offload, storage, free)


def check_card(folder: Path, total: int, offload: Offload = "none", storage: Storage = "same") -> None:
    """Raise RuntimeError where a card of `total` bytes cannot hold the weights in `folder` in 16 bits; none is read."""
    _refuse_larger(*_sizes(folder, storage), offload, storage, total)


def card_bytes(folder: Path, offload: Offload = "none", storage: Storage = "same") -> int:
    """What the weights in `folder` take of a card in 16 bits, at once; none is read."""
    return _at_once(*_sizes(folder, storage), offload)


def _sizes(folder: Path, storage: Storage) -> tuple[dict[str, int], list[str]]:
    """Bytes of the networks in `folder` on a card, and which of them a sampler calls."""
    counts = stored_counts(folder)
    sampled = [name for name in counts if name.startswith(("unet", "transformer"))]
    sizes = {name: count if storage == "float8" and name in sampled else 2 * count for name, count in counts.items()}
    return sizes, sampled


def _at_once(sizes: Mapping[str, int], sampled: Collection[str], offload: Offload) -> int:
    """Bytes that lie on the card together."""
    if offload == "layers":
        sizes = {name: size for name, size in sizes.items() if name not in sampled}
    return sum(sizes.values()) if offload == "none" else max(sizes.values(), default=0)


def stored_counts(folder: Path) -> dict[str, int]:
    """By subfolder, how many numbers its safetensors hold, as their headers say.

    What a loader leaves alone does not count: variants in other precisions, and in a pipeline's folder the one file
    with all of its networks beside the subfolders.

    Raises:
        ValueError: for a file that is cut off or none.
    """
    counts: dict[str, int] = {}
    whole_pipeline = (folder / "model_index.json").is_file()
    for file in sorted(folder.rglob("*.safetensors")):
        if _VARIANT.search(file.name) or (whole_pipeline and file.parent == folder):
            continue
        name = file.relative_to(folder).parts[0] if file.parent != folder else ""
        try:
            with safe_open(file, framework="pt") as tensors:
                shapes = [tensors.get_slice(key).get_shape() for key in tensors.keys()]  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{file} is no whole safetensors file ({error}): download it again") from error
        counts[name] = counts.get(name, 0) + sum(math.prod(shape) for shape in shapes)
    return counts


def _refuse_larger(
    sizes: Mapping[str, int], sampled: Collection[str], offload: Offload, storage: Storage, free: int
) -> None:
    needed = _at_once(sizes, sampled, offload)
    if needed > free:
        raise UserError(f"the networks need {needed / 2**30:.1f} GiB of GPU memory and {free / 2**30:.1f} GiB are "
                        f"free with video.offload {offload} and video.storage {storage}: set video.offload to parts "
                        "or layers, video.storage to float8, or take a larger GPU")  # fmt: skip


class Parts:
    """Networks by name; with offloading, one at a time lies on the device.

    Args:
        networks: in main memory.
        sampled: those that a sampler calls again and again, whose layers `offload` and `storage` mean.
        device: where they work.
        compute: precision that the sampled ones compute in.
    """

    def __init__(
        self, networks: dict[str, nn.Module], sampled: Collection[str], device: torch.device, compute: torch.dtype,
        offload: Offload = "none", storage: Storage = "same",
    ) -> None:  # fmt: skip
        self.networks, self.device, self.offload = networks, device, offload
        self.streamed = set(sampled) if offload == "layers" else set()
        self._at_work: str | None = None
        if device.type == "cuda":
            check_room(networks, sampled, offload, storage, torch.cuda.mem_get_info(device)[0])
        for name in sampled:
            network: Any = networks[name]
            if storage == "float8":
                network.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=compute)
            if name in self.streamed:
                network.enable_group_offload(
                    onload_device=device, offload_type="leaf_level", use_stream=device.type == "cuda"
                )
        if offload == "none":
            for network in networks.values():
                network.to(device)

    def use(self, name: str) -> Any:
        """The network, on the device; another one that lay there goes back to main memory."""
        if self.offload != "none" and name != self._at_work:
            if self._at_work is not None and self._at_work not in self.streamed:
                self.networks[self._at_work].to("cpu")
            if name not in self.streamed:
                self.networks[name].to(self.device)
            self._at_work = name
        return self.networks[name]
