"""Merge LoRA (Hu et al. 2021) into weights as they are loaded, W += scale * alpha / rank * B A: `merge`."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.digests import file_digest
from model.weights import license_of, locate_file
from recon.user_error import UserError

_PREFIX = re.compile(
    r"^(?:base_model\.model\.)?(?:model\.diffusion_model\.|diffusion_model\.|transformer\.|lora_unet_)?"
)
_SUFFIX = re.compile(
    r"\.(?:(?P<down>lora_A|lora_down|lora\.down)|(?P<up>lora_B|lora_up|lora\.up))(?:\.default)?\.weight$"
    r"|\.(?P<other>alpha|diff|diff_b)$"
)
_IMAGE_BRANCH = re.compile(
    r"[._](?:k_img|v_img|add_k_proj|add_v_proj|norm_k_img|norm_added_k)$|^img_emb|image_embedder"
)
_log = logging.getLogger(__name__)
Alias = Callable[[str], str]
"""A module's name in diffusers to its name in the model's original code."""


def merge_files(networks: list[nn.Module], lora: str, scale: float, alias: Alias) -> tuple[str, str]:
    """Merge one file into every network, or each its own of several joined by commas; revisions and licences of them.

    Raises:
        UserError: if a file is no LoRA for its network, or there are neither one nor as many as networks.
        UserError: if a file cannot be had.
    """
    from safetensors.torch import load_file

    files = _files(lora, len(networks))
    for network, file in zip(networks, files):
        merge(network, _whole(load_file, file), scale, alias, str(file))
    named = files[: len(lora.split(","))]
    revisions = [f"sha256:{file_digest(file)}" for file in named]
    return " + ".join(revisions), " + ".join(license_of(file.parent) for file in named)


def check_files(networks: list[nn.Module], lora: str, alias: Alias) -> None:
    """Merge the names and shapes of a LoRA's files into networks on the meta device; weights are not read.

    Raises:
        UserError: as `merge_files`.
    """
    for network, file in zip(networks, _files(lora, len(networks))):
        merge(network, _whole(_outline, file), 1.0, alias, str(file))


def _files(lora: str, count: int) -> list[Path]:
    """The file of each of `count` networks."""
    files = [locate_file(part.strip()) for part in lora.split(",")]
    if len(files) not in (1, count):
        raise UserError(f"video.lora names {len(files)} files and the model has {count} networks; "
                        "give one for all, or one for each")  # fmt: skip
    return files * count if len(files) == 1 else files


def _whole(read: Callable[[Path], dict[str, Tensor]], file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError

    try:
        return read(file)
    except SafetensorError as error:
        raise UserError(f"{file} is no whole safetensors file: {error}; download it again") from error


def _outline(file: Path) -> dict[str, Tensor]:
    """The tensors of a file on the meta device; single numbers as they are."""
    from safetensors import safe_open

    with safe_open(file, framework="pt") as stored:
        shapes = {name: stored.get_slice(name).get_shape() for name in stored.keys()}  # noqa: SIM118 (no mapping)
        return {
            name: torch.empty(shape, device="meta") if math.prod(shape) > 1 else stored.get_tensor(name)
            for name, shape in shapes.items()
        }


@torch.no_grad()
def merge(network: nn.Module, tensors: Mapping[str, Tensor], scale: float, alias: Alias, name: str) -> None:
    """Add a LoRA's low-rank products, and its full differences, to the network's weights and biases.

    Raises:
        UserError: if a key is of no layer of the network, or of one with other sizes: another family's LoRA.
    """
    modules = dict(network.named_modules())
    layers = _grouped(tensors, _known_names(modules, alias), getattr(network, "config", {}), name)
    for target, found in layers.items():
        module: Any = modules[target]
        if "down" in found or "up" in found:
            _add(module.weight, scale * _product(found, target, name), target, name)
        if "diff" in found:
            _add(module.weight, scale * found["diff"].float(), target, name)
        if "diff_b" in found:
            _add(module.bias, scale * found["diff_b"].float(), f"{target}.bias", name)


def _known_names(modules: Mapping[str, nn.Module], alias: Alias) -> dict[str, str]:
    """Every form in which a file may write a module's name, to the name here; with underscores too (kohya)."""
    names = {name: name for name in modules if name}
    names |= {alias(name): name for name in modules if alias(name) != name}  # the original's norm3 is norm2 here
    return {form.replace(".", "_"): name for form, name in names.items()} | names


def _grouped(
    tensors: Mapping[str, Tensor], known: Mapping[str, str], config: Mapping[str, Any], name: str
) -> dict[str, dict[str, Tensor]]:
    layers: dict[str, dict[str, Tensor]] = {}
    unknown, dropped = [], []
    for key, tensor in tensors.items():
        match = _SUFFIX.search(key)
        layer = _PREFIX.sub("", key[: match.start()]) if match else key
        if match and layer in known:
            kind = "down" if match["down"] else "up" if match["up"] else match["other"]
            layers.setdefault(known[layer], {})[kind] = tensor
        elif match and _IMAGE_BRANCH.search(layer) and "image_dim" in config and config["image_dim"] is None:
            dropped.append(key)
        else:
            unknown.append(key)
    if unknown or not layers:
        some = ", ".join(sorted(unknown)[:3]) or "no keys"
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise UserError(f"{name} has {some}{more}, which are no LoRA keys of this network: it is another family's; "
                        "take one that was trained on this model")  # fmt: skip
    if dropped:
        _log.warning("%s: %d keys of an image branch that this network has not are left out", name, len(dropped))
    return layers


def _product(found: Mapping[str, Tensor], target: str, name: str) -> Tensor:
    if not {"down", "up"} <= found.keys():
        raise UserError(f"{name} has one half of the LoRA of {target} only; download it again")
    down, up = found["down"].float().flatten(1), found["up"].float().flatten(1)
    rank = down.shape[0]
    if up.shape[1] != rank:
        raise UserError(f"{name} has ranks {rank} and {up.shape[1]} for {target}; it is damaged: download it again")
    alpha = float(found["alpha"]) if "alpha" in found else float(rank)
    return alpha / rank * (up @ down)


def _add(parameter: Any, change: Tensor, target: str, name: str) -> None:
    if parameter is None or parameter.numel() != change.numel() or parameter.shape[0] != change.shape[0]:
        shape = None if parameter is None else tuple(parameter.shape)
        raise UserError(f"{name} changes {target} by {tuple(change.shape)} numbers and the network has {shape} there: "
                        "it is for another size or family; take one that was trained on this model")  # fmt: skip
    changed = parameter.float() + change.reshape(parameter.shape).to(parameter.device)
    parameter.copy_(changed.to(parameter.dtype))
