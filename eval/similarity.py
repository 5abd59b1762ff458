"""CLIP similarity of an asset's views with its prompt and its image, and where its prompt ranks (Table 1)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from eval.clip import Scorer
from eval.config import Up

POOL_SIZE = 1000
VIEW_SETS = ("frames", "renders")


@dataclass(kw_only=True, slots=True)
class Protocol:
    """How views are made and judged; scores of two protocols must not be compared."""

    num_views: int = 16
    """Views at uniform azimuths; a video must have as many frames."""
    size: int = 128
    """Pixels of a side; a video must have as many."""
    background: float = 1.0
    """Grey behind the object in [0, 1]."""
    elevation: float = 0.3
    """Elevation of the cameras in radians for assets whose own is not known, in (-1.57, 1.57)."""
    fov_degrees: float = 40.0
    """Field of view of the re-renders, in (0, 120)."""
    distance: float = 3.0115
    """Camera to origin, in radii of the object's bounding sphere, > 1."""
    up: Up = "y"
    """Which way is up in PLY and OBJ files."""
    normalise: bool = False
    """Whether Gaussians are moved and scaled into the unit sphere, as meshes always are."""

    def __post_init__(self) -> None:
        if self.num_views < 1 or self.size < 2:
            raise ValueError(f"num_views is {self.num_views} and size {self.size}; they must be at least 1 and 2")
        if not 0 <= self.background <= 1:
            raise ValueError(f"background is {self.background}; it must lie in [0, 1]")
        if not -1.57 < self.elevation < 1.57:
            raise ValueError(f"elevation is {self.elevation}; it must lie in (-1.57, 1.57) radians")
        if not 0 < self.fov_degrees < 120 or not self.distance > 1:
            raise ValueError(
                f"fov_degrees is {self.fov_degrees} and distance {self.distance}; "
                "they must lie in (0, 120) and exceed 1, the object's radius"
            )


def fingerprint(statement: dict[str, Any]) -> str:
    """16 hexadecimal digits that differ when anything in the statement of a protocol does."""
    return hashlib.sha256(json.dumps(statement, sort_keys=True).encode()).hexdigest()[:16]


def prompt_pool(prompts: Iterable[str], size: int = POOL_SIZE) -> list[str]:
    """At most `size` different prompts for R-precision, chosen by their hash, whatever their order; they may stream."""
    pool: dict[str, bytes] = {}
    for prompt in prompts:
        pool[prompt] = hashlib.sha256(prompt.encode()).digest()
        if len(pool) >= 2 * size:
            pool = _least(pool, size)
    return sorted(_least(pool, size))


def _least(pool: dict[str, bytes], size: int) -> dict[str, bytes]:
    return dict(sorted(pool.items(), key=lambda item: item[1])[:size])


def columns(name: str) -> list[str]:
    """The score columns of the CLIP model `name`."""
    return [f"clip_{against}_{views}_{name}" for views in VIEW_SETS for against in ("text", "image")]


def score_asset(
    scorer: Scorer,
    seen: Mapping[str, np.ndarray],
    prompt: str,
    image: np.ndarray | None,
    pool: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    """Scores of one asset's views by one model, embedded together.

    Args:
        seen: uint8 [V,H,W,3] by what the views are, "frames" or "renders".
        image: uint8 [H,W,3], or None when the asset has none.
        pool: unit text embeddings [D] by prompt, among which the asset's own prompt is ranked.

    Returns:
        100 x cosine with text and image as means and, with the suffix ``_views``, by view [V] (None without an
        image), and ``rank_text_{what}_{model}``, how many prompts fit the mean view better than its own, >= 0.
    """
    pictures = [view for views in seen.values() for view in views]
    embedded = scorer.embed_images(pictures if image is None else [*pictures, image])
    own = torch.from_numpy(pool[prompt]) if prompt in pool else scorer.embed_texts([prompt])[0]
    others = [text for name, text in pool.items() if name != prompt]
    rivals = torch.from_numpy(np.stack(others)) if others else torch.zeros(0, len(own))
    found: dict[str, Any] = {}
    start = 0
    for what, views in seen.items():
        part = embedded[start : start + len(views)]
        start += len(views)
        for against, wanted in (("text", own), ("image", None if image is None else embedded[-1])):
            values = None if wanted is None else 100 * (part @ wanted).numpy()
            column = f"clip_{against}_{what}_{scorer.name}"
            found[column] = None if values is None else float(values.mean())
            found[f"{column}_views"] = None if values is None else values.tolist()
        middle = part.mean(0)
        found[f"rank_text_{what}_{scorer.name}"] = int((rivals @ middle > middle @ own).sum())
    return found


def score_views(
    scorer: Scorer, what: str, views: np.ndarray, prompt: str, image: np.ndarray | None, pool: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """`score_asset` of one set of views."""
    return score_asset(scorer, {what: views}, prompt, image, pool)
