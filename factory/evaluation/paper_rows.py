"""Make rows for the paper's tables from folders: `ablation_rows` one a variant, `rows_beside` one a CLIP model."""

from __future__ import annotations

import json
from collections.abc import Sequence

from eval.paper import Cell
from eval.statistics import summarise
from eval.tables import own_rows
from factory.evaluation.ablation.report import lines_of, results_of
from factory.evaluation.ablation.settings import FULL, AblationConfig
from factory.evaluation.ablation.work import FITS
from factory.evaluation.score_tables import same_protocol
from factory.ledger.reader import LedgerReader
from factory.storage.interface import ReadableStore, StorageConfig
from factory.storage.read_only import open_read_only
from recon.user_error import UserError

ABLATED = {2: "loss", 3: "frames"}
"""The paper's tables that an ablation has rows of, and what it calls them."""


def is_ablation(store: ReadableStore) -> bool:
    """Whether a folder is an output of `im3d ablate` with fits."""
    return next(iter(store.keys(f"{FITS}/")), None) is not None


def ablation_rows(store: ReadableStore, number: int, label: str) -> list[tuple[Cell, ...]]:
    """An ablation's rows of Table 2 or 3: CLIP similarity with text and image, (mean, deviation) over assets.

    None for other tables. A variant counts with the assets that it was fitted to, and its row says how many.
    """
    if number not in ABLATED:
        return []
    settings = json.loads(store.get("settings.json"))
    results = results_of(LedgerReader(store, FITS).rows(FITS))
    judges = [name.removeprefix("clip_text_") for name in _columns(results) if name.startswith("clip_text_")]
    rows: list[tuple[Cell, ...]] = []
    for line in lines_of(ABLATED[number], AblationConfig(rounds=settings["rounds"])):
        fits = results.get(line.variant, {}).values()
        for judge in judges if fits else ():
            found = [summarise([fit[f"clip_{what}_{judge}"] for fit in fits]) for what in ("text", "image")]
            name = f"{label}: {line.label} (n = {len(fits)}), CLIP {judge}"
            rows.append((name, *((one.mean, one.std) for one in found)))
    return rows


def _folder_name(folder: str) -> str:
    return folder.rstrip("/").rsplit("/", 1)[-1]


def _columns(results: dict[str, dict[str, dict]]) -> Sequence[str]:
    return list(next(iter(results.get(FULL, {}).values()), {}))


def rows_of_ablations(
    run: str, label: str, beside: Sequence[str], numbers: Sequence[int], storage: StorageConfig
) -> dict[int, list[tuple[Cell, ...]]]:
    """By table, the rows of the ablation `run`, called `label`, and of others, each called by its folder.

    Raises:
        UserError: for tables that ablations have no rows of, or none, and for a folder that is no ablation.
    """
    if not numbers or set(numbers) - set(ABLATED):
        raise UserError(f"{run} is an output of im3d ablate, which has Tables 2 and 3; say --table 2 3")
    folders = [(label, run), *((_folder_name(other), other) for other in beside)]
    stores = [(name, open_read_only(url, storage)) for name, url in folders]
    for _, store in stores:
        if not is_ablation(store):
            raise UserError(f"{store.root} is no output of im3d ablate; give a run as --run and ablations as --beside")
    return {number: [row for name, store in stores for row in ablation_rows(store, number, name)] for number in numbers}


def rows_beside(
    folders: Sequence[str], number: int, models: Sequence[str], ours: ReadableStore, storage: StorageConfig
) -> list[tuple[Cell, ...]]:
    """The rows of other folders, each called by its name: ablations, or runs that were evaluated as the one in `ours`.

    Raises:
        UserError: when a run was evaluated by another protocol, or not at all.
    """
    rows: list[tuple[Cell, ...]] = []
    for folder in folders:
        label, store = _folder_name(folder), open_read_only(folder, storage)
        if is_ablation(store):
            rows += ablation_rows(store, number, label)
        else:
            theirs = json.loads(same_protocol(folder, ours, storage).get("summary.json"))
            rows += own_rows(number, label, theirs["scores"], models, theirs["costs"])
    return rows
