"""Compare an asset with the real object that it was made from, on views that no stage has seen: `compare`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.fidelity import F_SCORE_REACH, PICTURES, SURFACES, Perceptual, depth_error, picture_fidelity
from eval.fidelity import surface_distances as distances
from factory.evaluation.viewable_asset import Shape, Turn
from factory.storage.interface import StorageConfig

UNSEEN_VIEWS = 8
POINTS = 10_000
STATEMENT: dict[str, Any] = {
    "views": UNSEEN_VIEWS,
    "azimuths": "half a step of the turntable beside its own",
    "truth": "64 samples a pixel, over white",
    "perceptual": "pocket",
    "surface_points": POINTS,
    "f_score_reach": F_SCORE_REACH,
}
"""What the figures depend on beside the protocol of views; it is written beside them."""


def columns() -> list[str]:
    """The columns of fidelity, all of re-renders."""
    return [f"{name}_renders" for name in PICTURES] + list(SURFACES)


def unseen(turn: Turn) -> Turn:
    """The cameras between those of an asset's own turntable."""
    orbit = replace(turn.orbit, num_views=UNSEEN_VIEWS)
    return replace(turn, orbit=orbit, start=turn.start + math.pi / turn.orbit.num_views)


def compare(
    shape: Shape, truth: Shape, turn: Turn, network: Perceptual,
    pictures: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None = None,
) -> dict[str, float | None]:  # fmt: skip
    """Every figure of `columns` of a shape against the true one.

    Args:
        turn: the asset's own turntable. pictures: of both from `unseen` cameras, where they were made already.
    """
    turn = unseen(turn)
    ours, theirs = pictures or (shape.pictures(turn), truth.pictures(turn))
    found = picture_fidelity(ours, theirs, network)
    found["depth_error"] = depth_error(shape.depths(turn), truth.depths(turn))
    surfaces = distances(shape.points(POINTS), truth.points(POINTS))
    return {f"{name}_renders": value for name, value in found.items()} | surfaces


def truth_paths(uri: str, storage: StorageConfig) -> tuple[str, dict[str, str]]:
    """The folder of known objects, and the path of each in it by asset id.

    Args:
        uri: a folder with `assets.jsonl`, or a table with columns `id` and `path`; local or s3://.
        storage: how it is reached.

    Raises:
        ValueError: when there is no such table.
    """
    from factory.prompts.assets import read_assets

    table = uri if uri.endswith((".csv", ".jsonl", ".parquet")) else f"{uri.rstrip('/')}/assets.jsonl"
    rows = read_assets(table, storage=storage)
    return table.rpartition("/")[0] or ".", {row["asset_id"]: row["path"] for row in rows if not row["error"]}


def truth_of(prompt_id: str, paths: Mapping[str, str]) -> str | None:
    """The path of the object whose id is the prompt's, or the prompt's up to its last dot, as of a turntable."""
    return paths.get(prompt_id) or paths.get(prompt_id.rpartition(".")[0])
