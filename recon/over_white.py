"""Put opaque pictures on white by their masks: `over_white(frames, masks)`.

A pixel at the object's edge shows I = a F + (1 - a) B: coverage a, object F, background B. On white it is

    O = clip(I - (1 - a) B, 0, a) + (1 - a),        all in [0, 1],

with B the mean of the bare pixels around. So pixels of no coverage become white whatever they show, soft edges lose
the old background instead of keeping a fringe of it, and what is on white already is not changed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BARE = 4
"""Pixels whose coverage is under this (of 255) show the background alone."""
REACH = 16
"""The background is averaged over a square of twice a `REACH`th of the picture's side."""


def over_white(frames: NDArray[np.uint8], masks: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The object of opaque frames alone on white; RGBA frames are on white by contract and come back as they are.

    Args:
        frames: uint8 [...,H,W,3|4]. masks: coverage uint8 [...,H,W]; not read for RGBA frames.

    Returns:
        uint8 of the frames' shape.

    Raises:
        ValueError: if shapes or dtypes do not belong together.
    """
    if frames.dtype != np.uint8 or frames.ndim < 3 or frames.shape[-1] not in (3, 4):
        raise ValueError(f"frames are {frames.dtype} {list(frames.shape)}; give uint8 [...,H,W,3|4]")
    if frames.shape[-1] == 4 or not frames.size:
        return frames
    if masks.dtype != np.uint8 or masks.shape != frames.shape[:-1]:
        raise ValueError(
            f"masks are {masks.dtype} {list(masks.shape)}; these frames need uint8 {list(frames.shape[:-1])}"
        )
    pictures, coverage = frames.reshape(-1, *frames.shape[-3:]), masks.reshape(-1, *masks.shape[-2:])
    return np.stack([_one(*pair) for pair in zip(pictures, coverage, strict=True)]).reshape(frames.shape)


def _one(picture: NDArray[np.uint8], coverage: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`over_white` of one picture [H,W,3]."""
    alpha, pixels = coverage[..., None] / np.float32(255), picture.astype(np.float32)
    share = pixels - (1 - alpha) * _background(pixels, coverage < BARE)
    return np.rint(share.clip(0, 255 * alpha) + 255 * (1 - alpha)).astype(np.uint8)


def _background(pixels: NDArray[np.float32], bare: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The mean colour [H,W,3] of the `bare` pixels around every pixel; of all of them where none is near."""
    from scipy.ndimage import uniform_filter

    if not bare.any():
        return np.full_like(pixels, 255)
    width = 2 * max(1, max(bare.shape) // REACH) + 1
    weights = bare.astype(np.float32)
    near = uniform_filter(weights, width, mode="constant")[..., None]
    summed = uniform_filter(pixels * weights[..., None], width, mode="constant", axes=(0, 1))
    found = near > 0.5 / width**2
    return np.where(found, summed / np.where(found, near, 1), pixels[bare].mean(0)).astype(np.float32)
