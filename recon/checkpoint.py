"""Save a small network as ``config.json`` beside ``model.safetensors``: `save_module`, `load_parameters`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from recon.user_error import UserError


def save_module(module: nn.Module, config: dict[str, Any], folder: Path) -> None:
    """Write `config` and the parameters, as float16, to `folder`.

    Raises:
        ValueError: if a parameter is not finite.
    """
    state = {name: value.detach().cpu().half().contiguous() for name, value in module.state_dict().items()}
    bad = [name for name, value in state.items() if not torch.isfinite(value).all()]
    if bad:
        raise ValueError(f"parameters are not finite in float16: {', '.join(bad)}; nothing was written")
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def read_config(folder: Path, what: str) -> dict[str, Any]:
    """The config of the network in `folder`.

    Raises:
        ValueError: if the folder holds no such network; `what` names it in the message.
    """
    missing = [name for name in ("config.json", "model.safetensors") if not (folder / name).is_file()]
    if missing:
        raise UserError(f"no {what} in {folder}: {' and '.join(missing)} missing")
    return json.loads((folder / "config.json").read_text())


def load_parameters(module: nn.Module, folder: Path) -> None:
    """Load the parameters in `folder` into `module` as float32, freeze them and switch to evaluation."""
    module.load_state_dict({name: value.float() for name, value in load_file(folder / "model.safetensors").items()})
    module.eval().requires_grad_(False)
