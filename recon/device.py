"""Where a fit runs."""

from __future__ import annotations

import torch


def device_of(name: str) -> torch.device:
    """The device "cpu" or "cuda"; "auto" is the GPU where there is one."""
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
