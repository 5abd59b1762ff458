"""The output folder of a run as an `eval.scored_run.ScoredRun`. Nothing is written, so the run may still be going."""

from __future__ import annotations

import io
import math
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from eval.page import address
from eval.scored_run import Letter, ScoredRun
from factory.config import flat
from factory.ledger import ASSETS, COMMITS, DEAD, SCORES
from factory.report import newest_report, report_section
from factory.schema import STAGES
from factory.store import Store, open_store

VIEWERS = "exports/html"
"""Where pages with a viewer are looked for in a run's folder: what `im3d export --format html` writes there."""
_NUMBERS = ("seed", "cost_dollars", "gpu_seconds", "num_gaussians", "yield_score")
_SECONDS = [f"seconds_{stage}" for stage in STAGES[:-1]]
_FORWARDS = [f"forwards_{part}" for part in ("image", "video", "refine")]
_ASSET = ["prompt_id", "prompt", "ply.path", *_NUMBERS, *_SECONDS, *_FORWARDS]
_LETTER = ["prompt_id", "prompt", "error_stage", "error_type", "error_message"]


def read_run(root: str, page: str | None = None) -> ScoredRun:
    """A run's assets, scores, dead letters and figures.

    Args:
        root: output folder of `im3d generate`, local or s3://.
        page: folder that the page will lie in; `root` by default.

    Raises:
        ValueError: when it holds neither assets nor dead letters.
    """
    store = open_store(root)
    assets, dead = _rows(store, ASSETS, _ASSET), _rows(store, DEAD, _LETTER)
    if not len(assets) and not len(dead):
        raise ValueError(f"{root} holds neither assets nor dead letters; give the output folder of im3d generate")
    settings = _settings(store)
    ids, seconds = _texts(assets, "prompt_id"), {name: _column(assets, name) for name in _SECONDS}
    numbers = {name: _column(assets, name) for name in _NUMBERS}
    numbers |= {"seconds": _sum(seconds.values(), len(ids))}
    numbers |= {"forwards": _sum([_column(assets, name) for name in _FORWARDS], len(ids))}
    own = [name for name in assets.column_names if name.startswith("clip_")]
    return ScoredRun(
        label=root.rstrip("/").rsplit("/", 1)[-1],
        base=_way(store.root, open_store(page or root).root),
        prompt_ids=ids,
        prompts=_texts(assets, "prompt"),
        folders=[path.rpartition("/")[0] for path in _texts(assets, "ply.path")],
        scores={name: _column(assets, name) for name in own} | _evaluations(store, ids),
        numbers=numbers,
        stage_seconds={stage: seconds[f"seconds_{stage}"] for stage in STAGES[:-1]},
        dead=[Letter(**{field: text or "" for field, text in zip(_FIELDS, row.values())}) for row in dead.to_pylist()],
        viewers=_viewers(store),
        settings=settings,
        num_views=math.gcd(int(settings.get("files.turntable_frames", 48)), int(settings.get("orbit.num_views", 16))),
        last_run=report_section(newest_report(store)),
    )


_FIELDS = ("prompt_id", "prompt", "stage", "kind", "message")


def _rows(store: Store, folder: str, columns: Sequence[str]) -> pa.Table:
    """Rows of one kind, one a prompt, with the wanted columns and every score; paths as `ply.path`.

    Commits are read before parts, so that a record that moves meanwhile is seen at least once; where both have a
    prompt, the part's row counts.
    """
    dead = folder == DEAD
    tables = [
        table for table in _tables(store, (COMMITS, folder), columns) if dead == ("error_stage" in table.column_names)
    ]
    none = pa.table({"prompt_id": pa.array([], pa.string())})
    joined = pa.concat_tables([none, *reversed(tables)], promote_options="default")
    places = pa.table({"id": joined["prompt_id"], "row": pa.array(np.arange(len(joined)))})
    first = places.group_by("id").aggregate([("row", "min")])["row_min"]
    return joined.take(pa.array(np.sort(first.to_numpy())))


def _tables(store: Store, folders: Sequence[str], columns: Sequence[str]) -> Iterator[pa.Table]:
    """The wanted columns that each parquet file has, and its scores, without nesting."""
    for folder in folders:
        for key in store.keys(f"{folder}/"):
            if not key.endswith(".parquet"):
                continue
            try:
                file = pq.ParquetFile(io.BytesIO(store.get(key)))
            except KeyError:
                continue
            names = file.schema_arrow.names
            wanted = [name for name in columns if name.split(".")[0] in names]
            scores = [name for name in names if name.startswith("clip_") and not name.endswith("_views")]
            yield file.read(columns=[*wanted, *scores]).flatten()


def _evaluations(store: Store, ids: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """The scores of `im3d evaluate`, by `column@protocol`, in the order of `ids`."""
    protocols = {key.split("/")[1] for key in store.keys("evaluations/") if key.endswith("/protocol.json")}
    found: dict[str, NDArray[np.float64]] = {}
    for protocol in sorted(protocols):
        place = f"evaluations/{protocol}"
        table = _rows(open_store(f"{store.root}/{place}"), SCORES, ["prompt_id"])
        rows = {name: row for row, name in enumerate(_texts(table, "prompt_id"))}
        order = np.array([rows.get(name, -1) for name in ids], int)
        for column in table.column_names:
            if column.startswith("clip_"):
                values = np.append(_column(table, column), np.nan)
                found[f"{column}@{protocol[:8]}"] = values[order]
    return found


def _viewers(store: Store) -> set[str]:
    return {key.rsplit("/", 1)[1].removesuffix(".html") for key in store.keys(f"{VIEWERS}/") if key.endswith(".html")}


def _settings(store: Store) -> dict[str, Any]:
    """`config.yaml` as flat settings; empty where there is none."""
    import yaml

    try:
        values = yaml.safe_load(store.get("config.yaml"))
    except KeyError:
        return {}
    except yaml.YAMLError as error:
        raise ValueError(f"{store.root}/config.yaml is no YAML: {error}") from error
    return dict(flat(values)) if isinstance(values, dict) else {}


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
    stacked = np.stack(list(columns)) if count else np.zeros((1, 0))
    return np.where(np.isnan(stacked).all(0), np.nan, np.nansum(stacked, 0))
