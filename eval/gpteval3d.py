"""Write what GPTEval3D's script reads of a method: `files_of`, 120 views and normals of an asset as PNG."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from recon.user_error import UserError

_ID = re.compile(r"gpteval3d-(\d+)")
TO_THREESTUDIO = (2, 0, 1)
"""Our axes in theirs: +x to the front, +z up."""


def place_of(prompt_id: str) -> int:
    """The place of a prompt in GPTEval3D's `prompts.json`, from 0.

    Raises:
        UserError: when the id does not name it.
    """
    found = _ID.fullmatch(prompt_id)
    if not found:
        raise UserError(f"prompt_id {prompt_id!r} names no place in GPTEval3D's prompts.json; use ids as of "
                        "--suite gpteval3d: gpteval3d-<place>")  # fmt: skip
    return int(found[1])


def files_of(prompt_id: str, rgb: NDArray[np.uint8], normals: NDArray[np.float32]) -> Iterator[tuple[str, bytes]]:
    """Names below the method's folder and bytes, ``<place>/0/rgb_<view>.png`` and ``normal_<view>.png``.

    Args:
        rgb: [V,S,S,3]. normals: [V,S,S,3], unit vectors in our world, 0 where there is nothing.

    Normals n become (n + 1) / 2 as colours, in threestudio's world and black where there is nothing.

    Raises:
        UserError: for a prompt id without place.
    """
    folder = f"{place_of(prompt_id)}/0"
    seen = (np.abs(normals).sum(-1, keepdims=True) > 0).astype(np.float32)
    colours = ((normals[..., TO_THREESTUDIO] + 1) / 2 * seen * 255).round().astype(np.uint8)
    for what, views in (("rgb", rgb), ("normal", colours)):
        for number, view in enumerate(views):
            yield f"{folder}/{what}_{number}.png", _png(view)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "png")
    return stream.getvalue()
