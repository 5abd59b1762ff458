"""State what a judge is: `Judge`, and what it sees of an asset: `Subject`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Pictures = NDArray[np.uint8]
"""uint8 [V,H,W,3]."""
BATCH_SIZE = 32


@dataclass(kw_only=True, slots=True)
class Subject:
    """One asset, as a judge sees it."""

    prompt: str | None = None
    """What it should show."""
    image: NDArray[np.uint8] | None = None
    """Its image prompt [H,W,3]."""
    seen: Mapping[str, Pictures] = field(default_factory=dict)
    """Its views by what they are: "frames" or "renders"."""
    pairs: Mapping[str, tuple[Pictures, Pictures]] = field(default_factory=dict)
    """Re-renders and what they should equal, from the same cameras: "frames", or the "truth"."""


class Judge(Protocol):
    """A measure of pictures. It is loaded once a worker, on the device of its stage.

    `name` and `revision` (sha256 of its weights) belong beside every figure; the name is part of each column's.
    """

    name: str
    more_is_better: bool

    @property
    def revision(self) -> str:
        """sha256 of the weights."""
        ...

    def statement(self) -> dict[str, Any]:
        """What its figures depend on beside its weights: templates, preprocessing."""
        ...

    def columns(self) -> list[str]:
        """The scores that it gives, each with a list by view under the suffix ``_views``."""
        ...

    def views(self, subjects: Sequence[Subject]) -> list[dict[str, NDArray[np.float64]]]:
        """By asset and column the scores of its views [V]; a column is left out where the asset has no such views.

        Raises:
            ValueError: for pictures that cannot be judged.
        """
        ...


def in_batches(
    pictures: Sequence[tuple[NDArray[np.uint8], ...]], judge: Callable[..., Tensor], size: int = BATCH_SIZE
) -> NDArray[np.float64]:
    """What `judge` gives [N] for N pictures, or tuples of them, at most `size` of one shape at a time.

    Args:
        judge: takes stacks uint8 [B,H,W,3], one for each place of the tuple, and returns [B].
    """
    found = np.zeros(len(pictures))
    for places in _same_shape_batches(pictures, size):
        stacks = [np.stack([pictures[place][part] for place in places]) for part in range(len(pictures[0]))]
        found[places] = judge(*stacks).double().cpu().numpy()
    return found


def _same_shape_batches(pictures: Sequence[tuple[NDArray[np.uint8], ...]], size: int) -> Iterator[list[int]]:
    """Places of pictures that have one shape, at most `size` at a time."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for place, group in enumerate(pictures):
        groups.setdefault(group[0].shape, []).append(place)
    for places in groups.values():
        yield from (places[start : start + size] for start in range(0, len(places), size))


def by_asset(
    flat: NDArray[np.float64], lengths: Sequence[Mapping[str, int]], name: Callable[[str], str]
) -> list[dict[str, NDArray[np.float64]]]:
    """Scores [N] of all views, one asset and kind after the other, as columns by asset.

    Args:
        lengths: by asset and kind the number of views. name: the column of a kind.
    """
    start, found = 0, []
    for kinds in lengths:
        columns = {}
        for kind, length in kinds.items():
            columns[name(kind)] = flat[start : start + length]
            start += length
        found.append(columns)
    return found
