"""Read the output folder of a run, also of one that goes on, as an `eval.scored_run.ScoredRun`: `read_run`."""

from __future__ import annotations

import io
import json
import math
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from eval.page import address
from eval.score_columns import is_measure
from eval.scored_run import DeadLetter, Evaluation, ScoredRun
from factory.ledger.commit_protocol import COMMITS
from factory.ledger.reader import ASSETS, DEAD, SCORES
from factory.ledger.run_identity import settings_of
from factory.ledger.schemas import ERROR, by_part
from factory.line.failure import place_of
from factory.line.run_report import newest_report, report_section
from factory.prompts.foreign_folder import asset_files, store_files
from factory.storage.interface import ReadableStore, StorageConfig
from factory.storage.read_only import open_read_only
from model.views import PAPER_VIEWS
from recon.user_error import UserError

VIEWERS = "exports/html"
"""Where pages with a viewer are looked for in a run's folder: what `im3d export --format html` writes there."""
_NUMBERS = ("seed", "cost_dollars", "gpu_seconds", "num_gaussians", "yield_score", "usable")
_TEXTS = ("prompt_id", "prompt", "ply.path")
_LETTER = ["prompt_id", "prompt", *(name for name, _ in ERROR)]


def read_run(root: str, storage: StorageConfig, page: str | None = None, judged: str | None = None) -> ScoredRun:
    """A run's assets, scores, dead letters and figures.

    Args:
        root: output folder of `im3d generate`, or a folder that `im3d evaluate --prompts` has judged; local or s3://.
        storage: how folders are reached.
        page: folder that the page will lie in; `root` by default.
        judged: another folder with evaluations of the run, beside those in `root`.

    Raises:
        UserError: when it holds neither assets nor dead letters, and no evaluation.
    """
    store = open_read_only(root, storage)
    places = _evaluation_stores([root, judged] if judged else [root], storage)
    assets, dead = _rows(store, ASSETS, (*_TEXTS, *_NUMBERS)), _rows(store, DEAD, _LETTER)
    if not len(assets) and not len(dead):
        return _judged_folder(root, storage, page, places)
    settings, ids = settings_of(store), _texts(assets, "prompt_id")
    columns = {kind: by_part(assets.column_names, kind) for kind in ("seconds", "steps", "forwards")}
    seconds = {stage: _column(assets, name) for stage, name in columns["seconds"].items()}
    calls = {name: _column(assets, name) for kind in ("steps", "forwards") for name in columns[kind].values()}
    evaluations, scores = _evaluations(places, ids)
    numbers = {name: _column(assets, name) for name in _NUMBERS} | {
        "seconds": _sum(seconds.values(), len(ids)),
        "forwards": _sum([calls[name] for name in columns["forwards"].values()], len(ids)),
    }
    numbers["yield_score"] = _first_known([numbers["yield_score"], *_of_gate(scores)])
    return ScoredRun(
        label=root.rstrip("/").rsplit("/", 1)[-1],
        base=_way(store.root, open_read_only(page or root, storage).root),
        prompt_ids=ids,
        prompts=_texts(assets, "prompt"),
        folders=[path.rpartition("/")[0] for path in _texts(assets, "ply.path")],
        scores={name: _column(assets, name) for name in assets.column_names if is_measure(name)} | scores,
        numbers=numbers,
        calls=calls,
        stage_seconds=seconds,
        dead=_letters(dead),
        evaluations=evaluations,
        viewers=_viewers(store),
        settings=settings,
        num_views=_written_views(settings),
        last_run=report_section(newest_report(store)),
    )


def _written_views(settings: Mapping[str, Any]) -> int:
    """How many views of an asset a run writes; see `factory.stages.renders.view_step`."""
    wanted = int(settings.get("orbit.num_views", PAPER_VIEWS))
    return math.gcd(int(settings.get("files.turntable_frames", 48)), wanted)


def _judged_folder(
    root: str, storage: StorageConfig, page: str | None, places: Mapping[str, ReadableStore]
) -> ScoredRun:
    """Anyone's videos and models, as the largest evaluation of them has them; what it could not score is dead."""
    store, judged = open_read_only(root, storage), places.values()
    known = [(_rows(place, SCORES, ["prompt_id", "prompt"]), _rows(place, DEAD, _LETTER)) for place in judged]
    if not any(len(scored) or len(dead) for scored, dead in known):
        raise UserError(
            f"{root} holds neither assets nor dead letters; give the output folder of im3d generate, "
            "or a folder that im3d evaluate --prompts has judged"
        )
    scored, dead = max(known, key=lambda tables: len(tables[0]))
    ids, none = _texts(scored, "prompt_id"), np.full(len(scored), np.nan)
    evaluations, scores = _evaluations(places, ids)
    files = asset_files(store_files(root, storage))
    return ScoredRun(
        label=root.rstrip("/").rsplit("/", 1)[-1],
        base=_way(store.root, open_read_only(page or root, storage).root),
        prompt_ids=ids,
        prompts=_texts(scored, "prompt"),
        folders=[""] * len(ids),
        scores=scores,
        numbers=dict.fromkeys([*_NUMBERS, "seconds", "forwards"], none)
        | {"yield_score": _first_known([none, *_of_gate(scores)])},
        calls={},
        stage_seconds={},
        dead=_letters(dead),
        evaluations=evaluations,
        files=[tuple(files.get(name, {}).get(kind, "") for kind in ("frames_path", "model_path")) for name in ids],
    )


def _letters(dead: pa.Table) -> list[DeadLetter]:
    """The dead letters of a table; one of an older version has no traces."""
    return [
        DeadLetter(
            prompt_id=row["prompt_id"],
            prompt=row["prompt"] or "",
            stage=row["error_stage"] or "",
            kind=row["error_type"] or "",
            message=row["error_message"] or "",
            place=place_of(row.get("error_trace")),
        )
        for row in dead.to_pylist()
    ]


def _rows(store: ReadableStore, folder: str, columns: Sequence[str]) -> pa.Table:
    """Rows of one kind, one a prompt, with the wanted columns and every measure; paths as `ply.path`.

    Commits are read before parts, so that a record that moves meanwhile is seen at least once; where both have a
    prompt, the part's row counts.
    """
    none = pa.table({"prompt_id": pa.array([], pa.string())})
    tables = list(_tables(store, folder, columns))
    joined = pa.concat_tables([none, *reversed(tables)], promote_options="default")
    places = pa.table({"id": joined["prompt_id"], "row": pa.array(np.arange(len(joined)))})
    first = places.group_by("id").aggregate([("row", "min")])["row_min"]
    return joined.take(pa.array(np.sort(first.to_numpy())))


def _tables(store: ReadableStore, folder: str, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Commits, then parts: the wanted columns that each file has, and its measures, without nesting."""
    for key in (key for place in (COMMITS, folder) for key in store.keys(f"{place}/") if key.endswith(".parquet")):
        try:
            file = pq.ParquetFile(io.BytesIO(store.get(key)))
        except KeyError:
            continue
        names = file.schema_arrow.names
        if ("error_stage" in names) == (folder == DEAD):
            wanted = [name for name in columns if name.split(".")[0] in names]
            counted = [name for name in names if name.startswith(("seconds_", "steps_", "forwards_"))]
            yield file.read(columns=[*wanted, *counted, *filter(is_measure, names)]).flatten()


def _evaluations(
    places: Mapping[str, ReadableStore], ids: Sequence[str]
) -> tuple[list[Evaluation], dict[str, NDArray[np.float64]]]:
    """The evaluations of `im3d evaluate`, and their scores by `column@protocol`, in the order of `ids`.

    Of evaluations by one protocol, which differ by the prompts that ranks are among, the one with the most scores.
    """
    tables = {name: _rows(place, SCORES, ["prompt_id"]) for name, place in places.items()}
    chosen = {name.partition("-")[0]: name for name in sorted(tables, key=lambda name: len(tables[name]))}
    found, scores = [], {}
    for name in sorted(chosen.values()):
        table, statement = tables[name], json.loads(places[name].get("protocol.json"))
        evaluation = Evaluation(
            name=name, statement=statement, scored=len(table), dead=_letters(_rows(places[name], DEAD, _LETTER))
        )
        rows = {prompt_id: row for row, prompt_id in enumerate(_texts(table, "prompt_id"))}
        order = np.array([rows.get(prompt_id, -1) for prompt_id in ids], int)
        for column in filter(is_measure, table.column_names):
            scores[f"{column}@{evaluation.protocol}"] = np.append(_column(table, column), np.nan)[order]
        found.append(evaluation)
    return found, {column: values for column, values in scores.items() if np.isfinite(values).any()}


def _evaluation_stores(roots: Sequence[str], storage: StorageConfig) -> dict[str, ReadableStore]:
    """The folders of evaluations by name."""
    found: dict[str, ReadableStore] = {}
    for root in roots:
        keys = open_read_only(root, storage).keys("evaluations/")
        names = sorted({key.split("/")[1] for key in keys if key.endswith("/protocol.json")})
        found |= {name: open_read_only(f"{root.rstrip('/')}/evaluations/{name}", storage) for name in names}
    return found


def _of_gate(scores: Mapping[str, NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    """The yield gate's verdicts of evaluations."""
    return [values for column, values in scores.items() if column.startswith("yield_probability@")]


def _first_known(columns: Iterable[NDArray[np.float64]]) -> NDArray[np.float64]:
    """By row, the first value that is known; nan where none is."""
    found, *others = columns
    for other in others:
        found = np.where(np.isnan(found), other, found)
    return found


def _viewers(store: ReadableStore) -> set[str]:
    return {key.rsplit("/", 1)[1].removesuffix(".html") for key in store.keys(f"{VIEWERS}/") if key.endswith(".html")}


def _way(root: str, page: str) -> str | None:
    """The address of a folder from another, both local or in one bucket: "" for the same, None where there is none."""
    places = [urlsplit(place) for place in (root, page)]
    if places[0][:2] != places[1][:2]:
        return None
    way = posixpath.relpath(places[0].path or "/", places[1].path or "/")
    return "" if way == "." else f"{address(way)}/"


def _texts(table: pa.Table, name: str) -> list[str]:
    return [text or "" for text in table[name].to_pylist()] if name in table.column_names else [""] * len(table)


def _column(table: pa.Table, name: str) -> NDArray[np.float64]:
    """A column of numbers as float64 [N]; nan where there is none."""
    if name not in table.column_names:
        return np.full(len(table), np.nan)
    return table[name].cast(pa.float64(), safe=False).to_numpy().astype(np.float64)


def _sum(columns: Iterable[NDArray[np.float64]], count: int) -> NDArray[np.float64]:
    """The sum by row of what is known; nan where nothing is."""
    stacked = np.stack([np.full(count, np.nan), *columns])
    return np.where(np.isnan(stacked).all(0), np.nan, np.nansum(stacked, 0))
