"""Prepare images as CLIP's encoders take them: `clip_pixels`."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional


def clip_pixels(images: Tensor, feature_extractor: dict[str, Any], mode: str) -> Tensor:
    """Images [B,3,H,W] in [-1, 1], resized and normalised as `feature_extractor` (its json) tells for CLIP."""
    crop = feature_extractor["crop_size"]
    size = (crop["height"], crop["width"]) if isinstance(crop, dict) else (crop, crop)
    resized = functional.interpolate(images, size, mode=mode, antialias=True, align_corners=False)
    mean, std = (images.new_tensor(feature_extractor[key]).view(1, 3, 1, 1) for key in ("image_mean", "image_std"))
    return ((resized + 1) / 2 - mean) / std
