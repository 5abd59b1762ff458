"""Convert pixels between files and the pocket models: `to_premultiplied`, `to_frames`."""

from __future__ import annotations

import torch
from torch import Tensor


def to_premultiplied(frames: Tensor) -> Tensor:
    """uint8 [...,H,W,4] (RGB over white, coverage) to float [...,4,H,W] in [-1,1], RGB premultiplied."""
    x = frames.movedim(-1, -3).float() / 255
    rgb, alpha = x[..., :3, :, :], x[..., 3:, :, :]
    return torch.cat([rgb - (1 - alpha), alpha], -3) * 2 - 1


def to_frames(x: Tensor) -> Tensor:
    """Inverse of `to_premultiplied`: float [...,4,H,W] to uint8 [...,H,W,4], clamped to valid colours."""
    x = (x.float() / 2 + 0.5).clamp(0, 1)
    alpha = x[..., 3:, :, :]
    rgb = torch.minimum(x[..., :3, :, :], alpha) + (1 - alpha)
    return (torch.cat([rgb, alpha], -3) * 255).round().to(torch.uint8).movedim(-3, -1)
