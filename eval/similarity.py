"""Score views by CLIP against prompt and image, and rank the prompt among others (Table 1): `score_asset`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from eval.clip import Scorer
from eval.protocols import Protocol, pooled
from eval.score_columns import clip_column, rank_column

POOL_SIZE = 1000


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


def score_asset(
    scorer: Scorer,
    seen: Mapping[str, np.ndarray],
    prompt: str | None,
    image: np.ndarray | None,
    pool: Mapping[str, np.ndarray],
    protocol: Protocol | None = None,
) -> dict[str, Any]:
    """Scores of one asset's views by one model, every picture embedded once.

    Args:
        seen: uint8 [V,H,W,3] by what the views are, "frames" or "renders".
        prompt: None or "" when the asset has none.
        image: uint8 [H,W,3], or None when the asset has none.
        pool: unit text embeddings [D] by prompt, among which the asset's own prompt is ranked.
        protocol: how the scores of views become the asset's; their mean without.

    Returns:
        100 x cosine with text and image, pooled and, with the suffix ``_views``, by view [V] (None without prompt or
        image), and ``rank_text_{what}_{model}``, how many prompts fit the mean view better than its own, >= 0.
    """
    pictures = [view for views in seen.values() for view in views]
    embedded = scorer.embed_images(pictures if image is None else [*pictures, image])
    own = _text(scorer, prompt, pool)
    found: dict[str, Any] = {}
    start = 0
    for what, views in seen.items():
        part = embedded[start : start + len(views)]
        start += len(views)
        for against, wanted in (("text", own), ("image", None if image is None else embedded[-1])):
            values = None if wanted is None else 100 * (part @ wanted).numpy()
            column = clip_column(against, what, scorer.name)
            found[column] = None if values is None else pooled(values, protocol or Protocol())
            found[f"{column}_views"] = None if values is None else values.tolist()
        found[rank_column(what, scorer.name)] = None if own is None else _rank(part.mean(0), own, prompt, pool)
    return found


def mean_scores(
    scorer: Scorer, seen: Mapping[str, np.ndarray], prompt: str | None, image: np.ndarray | None
) -> dict[str, float]:
    """`score_asset` without its views and ranks: nan where the asset has no prompt or no image."""
    found = score_asset(scorer, seen, prompt, image, {})
    wanted = [clip_column(against, what, scorer.name) for what in seen for against in ("text", "image")]
    return {name: float("nan") if found[name] is None else found[name] for name in wanted}


def _text(scorer: Scorer, prompt: str | None, pool: Mapping[str, np.ndarray]) -> torch.Tensor | None:
    if not prompt:
        return None
    return torch.from_numpy(pool[prompt]) if prompt in pool else scorer.embed_texts([prompt])[0]


def _rank(middle: torch.Tensor, own: torch.Tensor, prompt: str | None, pool: Mapping[str, np.ndarray]) -> int:
    """How many other prompts of the pool fit the mean view [D] better than the own one [D]."""
    others = [text for name, text in pool.items() if name != prompt]
    return int((torch.from_numpy(np.stack(others)) @ middle > middle @ own).sum()) if others else 0


def score_views(
    scorer: Scorer, what: str, views: np.ndarray, prompt: str, image: np.ndarray | None, pool: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """`score_asset` of one set of views."""
    return score_asset(scorer, {what: views}, prompt, image, pool)
