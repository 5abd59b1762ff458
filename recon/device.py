"""Choose where a fit runs: `device_of`."""

from __future__ import annotations

import torch

from recon.user_error import UserError


def device_of(name: str) -> torch.device:
    """The device "cpu" or "cuda"; "auto" is the GPU where there is one.

    Raises:
        UserError: for another name, or "cuda" where torch finds no GPU.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UserError(f"device is {name!r}; available: auto, cpu, cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device is 'cuda', but torch finds no GPU; use 'cpu' or 'auto', or a CUDA build of torch")
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
