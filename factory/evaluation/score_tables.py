"""Read scores as columns, summarise them over prompts and compare runs: `read_scores`, `summaries`, `comparisons`."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.score_columns import clip_columns, rank_columns
from eval.statistics import compare, prompt_means, summarise
from factory.ledger.keys import digest
from factory.ledger.reader import DEAD, SCORES, LedgerReader
from factory.storage.interface import ReadableStore, StorageConfig
from factory.storage.read_only import open_read_only
from recon.user_error import UserError

PRECISION_AT = (1, 5, 10)
PARTS = ("views", "models", "measures", "reference")
"""Of a protocol: what two of them must share."""
NAMED = 1000
"""Bad assets that a summary names; the others it counts."""


@dataclass(kw_only=True, slots=True)
class Scores:
    """Columns float64 [N] by name, nan where an asset has none, and a key uint64 [N] of each asset's prompt."""

    prompts: NDArray[np.uint64]
    values: dict[str, NDArray[np.float64]]

    def __len__(self) -> int:
        return len(self.prompts)

    def means(self, column: str) -> tuple[NDArray[np.uint64], NDArray[np.float64]]:
        """The prompts [P] that have a score, and the mean of each one's assets."""
        return prompt_means(self.prompts, self.values[column])


def read_scores(ledger: LedgerReader, names: Sequence[str]) -> Scores:
    """These columns of the scores that a ledger holds: 8 bytes an asset and column in memory."""
    prompts, values = array("Q"), [array("d") for _ in names]
    for row in ledger.rows(SCORES, ["prompt", *names]):
        prompts.append(int(digest(row["prompt"])[:16], 16))
        for column, name in zip(values, names, strict=True):
            column.append(np.nan if row[name] is None else row[name])
    arrays = {name: np.array(column, np.float64) for name, column in zip(names, values, strict=True)}
    return Scores(prompts=np.array(prompts, np.uint64), values=arrays)


def mean_columns(models: Sequence[str], measures: Sequence[str]) -> list[str]:
    """The columns that are summarised by their mean: CLIP by model, then other measures."""
    return [column for model in models for column in clip_columns(model)] + list(measures)


def summaries(scores: Scores, models: Sequence[str], measures: Sequence[str]) -> dict[str, dict[str, float]]:
    """By column: the summary over prompts; of ranks R-precision at k in per cent, with its interval."""
    found: dict[str, dict[str, float]] = {}
    for column in mean_columns(models, measures):
        _, means = scores.means(column)
        if len(means):
            found[column] = asdict(summarise(means))
    for column in rank_columns(models):
        if np.isfinite(scores.values[column]).any():
            found[column.replace("rank", "r_precision")] = _precision(scores.prompts, scores.values[column])
    return found


def _precision(prompts: NDArray[np.uint64], ranks: NDArray[np.float64]) -> dict[str, float]:
    """R-precision at PRECISION_AT in per cent over prompts, with the interval of each."""
    found: dict[str, float] = {}
    for k in PRECISION_AT:
        _, shares = prompt_means(prompts, np.where(np.isnan(ranks), np.nan, ranks < k))
        over = summarise(100 * shares)
        found |= {"count": over.count, f"at_{k}": over.mean, f"at_{k}_low": over.low, f"at_{k}_high": over.high}
    return found


def comparisons(mine: Scores, theirs: Scores, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Paired comparisons by column over the prompts that both runs have scores of, where these are at least 2."""
    found = {}
    for column in names:
        (own, a), (other, b) = mine.means(column), theirs.means(column)
        shared, here, there = np.intersect1d(own, other, assume_unique=True, return_indices=True)
        if len(shared) >= 2:
            left_out = len(own) + len(other) - 2 * len(shared)
            found[column] = asdict(compare(a[here], b[there])) | {"prompts_left_out": left_out}
    return found


def letters(ledger: LedgerReader, folder: str = DEAD) -> dict[str, Any]:
    """The dead letters of a ledger: their `count`, counts `by_type`, and NAMED of them with their reasons."""
    kinds: Counter[str] = Counter()
    named: list[dict[str, str]] = []
    for row in ledger.rows(folder, ["prompt_id", "error_type", "error_message"]):
        kinds[row["error_type"]] += 1
        if len(named) < NAMED:
            named.append(row)
    return {"count": kinds.total(), "by_type": dict(kinds), "named": named}


def cut_prompts(ledger: LedgerReader, models: Sequence[str]) -> dict[str, dict[str, Any]]:
    """By CLIP model how many assets' prompts it has not read to their end, and NAMED of them."""
    found: dict[str, dict[str, Any]] = {model: {"count": 0, "named": []} for model in models}
    for row in ledger.rows(SCORES, ["prompt_id", *(f"cut_{model}" for model in models)]):
        for model, cut in found.items():
            if row[f"cut_{model}"]:
                cut["count"] += 1
                cut["named"] += [row["prompt_id"]] if len(cut["named"]) < NAMED else []
    return found


def same_protocol(other: str, store: ReadableStore, storage: StorageConfig) -> ReadableStore:
    """The evaluation of the folder `other` that was made as the one in `store`; of several, the one of most assets.

    Args:
        storage: how the other folder is reached.

    Raises:
        UserError: when there is none, saying what differs, or it was never finished.
    """
    own, name = json.loads(store.get("protocol.json")), store.root.rstrip("/").rsplit("/", 1)[1].split("-")[0]
    place = open_read_only(other, storage)
    folders = [key.rpartition("/")[0] for key in place.keys("evaluations/") if key.endswith("/protocol.json")]
    if not folders:
        raise UserError(f"{other} has no evaluation; run im3d evaluate --run {other} with the same flags first")
    alike = [folder for folder in folders if folder.split("/")[1].split("-")[0] == name]
    if alike:
        counts = {folder: _scored(place, folder) for folder in alike}
        most = max(alike, key=counts.__getitem__)
        if counts[most] < 0:
            raise UserError(f"the evaluation {other.rstrip('/')}/{most} is not finished; run its command again first")
        return open_read_only(f"{other.rstrip('/')}/{most}", storage)
    theirs = json.loads(place.get(f"{folders[-1]}/protocol.json"))
    changes = _changes(own, theirs)
    raise UserError(
        f"{other} was evaluated by another protocol ({'; '.join(changes)}): evaluate it with the same flags"
    )


def _changes(own: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """What differs between two protocols: their names where these do."""
    names = [one["views"].get("name", "im3d") for one in (own, theirs)]
    if names[0] != names[1]:
        return [f"protocol {names[0]} here, {names[1]} there"]
    return [
        f"{part}: {own.get(part)} here, {theirs.get(part)} there" for part in PARTS if own.get(part) != theirs.get(part)
    ]


def _scored(place: ReadableStore, folder: str) -> int:
    """The assets that a finished evaluation scored; -1 for one that was never finished."""
    try:
        return json.loads(place.get(f"{folder}/summary.json"))["assets"]
    except KeyError:
        return -1
