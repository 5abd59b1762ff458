"""Check the targets of a fit and hold them as tensors, also at half the size: `checked_targets`, `halved`."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recon.masks import masks_of
from recon.over_white import over_white

MIN_SIZE = 16


def checked_targets(frames: np.ndarray, masks: np.ndarray | None, views: int, size: int) -> tuple[Tensor, Tensor]:
    """Targets in [0,1]: rgb [V,S,S,3] and masks [V,S,S]; opaque frames are put on white by their masks.

    Raises:
        ValueError: if shapes or dtypes are not those of `views` frames of `size` pixels, the size is under 16, or
            no mask holds an object.
    """
    wanted = f"uint8 [{views},{size},{size},3|4]"
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] not in (3, 4):
        raise ValueError(f"frames are {frames.dtype} {list(frames.shape)}; the fit wants {wanted} with values 0..255")
    if frames.shape[:3] != (views, size, size):
        raise ValueError(f"frames are {list(frames.shape)} but the cameras want {wanted}; pad or resize to square")
    if size < MIN_SIZE:
        raise ValueError(f"frames are {size} pixels a side; the losses need at least {MIN_SIZE}, so render larger")
    masks = masks_of(frames) if masks is None else masks
    if masks.dtype != np.uint8 or masks.shape != frames.shape[:3]:
        raise ValueError(f"masks are {masks.dtype} {list(masks.shape)}; the fit wants uint8 {list(frames.shape[:3])}")
    if masks.max() < 128:
        raise ValueError(
            "no mask holds an object (no pixel covered by half); the frames are empty or the masker failed"
        )
    frames = over_white(frames, masks)
    return torch.from_numpy(frames[..., :3].astype(np.float32) / 255), torch.from_numpy(masks.astype(np.float32) / 255)


def halved(rgb: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """The targets of `checked_targets` at half the size; the size must be even."""
    both = torch.cat([rgb, alpha[..., None]], -1).permute(0, 3, 1, 2)
    half = F.avg_pool2d(both, 2).permute(0, 2, 3, 1)
    return half[..., :3], half[..., 3]
