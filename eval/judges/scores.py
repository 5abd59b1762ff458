"""Turn judges' scores of views into an asset's columns: `scores_of`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eval.judges.judge import Judge, Subject
from eval.protocols import Protocol, pooled


def scores_of(judge: Judge, subjects: Sequence[Subject], protocol: Protocol) -> list[dict[str, Any]]:
    """By asset, each column pooled as the protocol says, and with the suffix ``_views`` by view [V].

    Columns that the asset has no pictures for are left out. Of distances, whose best is the least, the mean is taken
    by every protocol.

    Raises:
        ValueError: for pictures that cannot be judged.
    """
    rows = []
    for views in judge.views(subjects):
        row: dict[str, Any] = {}
        for column, values in views.items():
            row[column] = pooled(values, protocol) if judge.more_is_better else float(values.mean())
            row[f"{column}_views"] = values.tolist()
        rows.append(row)
    return rows
