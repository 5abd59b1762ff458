"""Embed a reference set of pictures: `reference_features`, object by object."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from eval.distributions import FeatureSet
from eval.judges.features import FeatureModel
from recon.pictures import on_grey, open_picture
from recon.user_error import UserError

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
SHOWN = 5


def objects_of(names: Iterable[str]) -> dict[str, list[str]]:
    """Pictures by the object that they show: those of one subfolder are one object's, others each an own one's."""
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        path = PurePosixPath(name)
        if path.suffix.lower() in PICTURES:
            found.setdefault(name if str(path.parent) == "." else str(path.parent), []).append(name)
    return found


def revision_of(objects: dict[str, list[str]], read: Callable[[str], bytes]) -> str:
    """sha256 of the names and bytes of all pictures.

    Raises:
        ValueError: when there are none.
    """
    if not objects:
        raise UserError(f"the reference set is empty; give a folder of {', '.join(PICTURES)}")
    total = hashlib.sha256()
    for names in objects.values():
        for name in names:
            total.update(name.encode() + b"\0" + hashlib.sha256(read(name)).digest())
    return f"sha256:{total.hexdigest()}"


def reference_features(
    model: FeatureModel, objects: dict[str, list[str]], read: Callable[[str], bytes], size: int, background: float
) -> FeatureSet:
    """Features of pictures of `size` pixels a side over a grey in [0, 1].

    Raises:
        ValueError: for pictures that cannot be read or are of another size, counted, the first ones named.
    """
    found, bad = FeatureSet("the reference set"), list[str]()
    for names in objects.values():
        pictures = []
        for name in names:
            try:
                pictures.append(_picture(read(name), size, background))
            except ValueError as error:
                bad.append(f"{name}: {error}")
        if not bad:
            found.add(model.embed(pictures))
    if bad:
        raise UserError(f"{len(bad)} pictures of the reference set cannot be used: {'; '.join(bad[:SHOWN])}")
    return found


def _picture(data: bytes, size: int, background: float) -> NDArray[np.uint8]:
    pixels = open_picture(data)
    if pixels.shape[:2] != (size, size):
        raise ValueError(f"image is {pixels.shape[1]}x{pixels.shape[0]}, the protocol says {size}x{size}")
    return on_grey(pixels, background)
