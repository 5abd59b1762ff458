"""Write assets and dead letters as data for the report's page, in files of SHARD_ROWS rows: `data_files`.

A page that is opened from disk may load scripts, but no JSON; it loads the files that the shown rows lie in, and
all of them to search or to sort.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from eval.page import script_data
from eval.score_columns import measure_of
from eval.scored_run import ScoredRun

SHARD_ROWS = 2000
MAX_MESSAGE = 300
FACTS = {
    "seconds": ("seconds of stage time", 1),
    "cost_dollars": ("dollars", 5),
    "forwards": ("network evaluations", 0),
    "num_gaussians": ("Gaussians", 0),
    "yield_score": ("risk of an unusable turntable", 3),
    "usable": ("probability that it is of use", 3),
    "seed": ("seed", 0),
}
"""The numbers of an asset beside its scores: what they are called, and decimals."""


def data_files(run: ScoredRun, by: str | None) -> Iterator[tuple[str, str]]:
    """Names and texts of the script files: `contents.js`, then the shards of assets from best to worst, then those of
    dead letters by stage. `down`: whether the best have the highest score."""
    columns = list(run.scores) + [name for name in FACTS if not _empty(run, name)]
    assets = run.ranked(by)
    dead = sorted(run.dead, key=lambda letter: (letter.stage, letter.kind, letter.prompt_id))
    contents = {
        "base": run.base,
        "assets": len(assets),
        "failed": len(dead),
        "shard": SHARD_ROWS,
        "columns": [_column(name) for name in columns],
        "by": by,
        "down": by is None or not measure_of(by).low,
        "threshold": float(run.settings.get("yields.threshold", 0.5)),
    }
    yield "contents.js", script_data("globalThis.CONTENTS", contents)
    for number, rows in enumerate(_slices(assets)):
        yield f"assets-{number:04d}.js", script_data(f"globalThis.ASSETS[{number}]", _shard(run, rows, columns))
    for number, letters in enumerate(_slices(dead)):
        shard: dict[str, Any] = {name: [getattr(one, name) for one in letters] for name in ("prompt", "stage", "kind")}
        shard["id"] = [one.prompt_id for one in letters]
        shard["place"] = [one.place for one in letters]
        shard["message"] = [_cut(one.message) for one in letters]
        yield f"failed-{number:04d}.js", script_data(f"globalThis.FAILED[{number}]", shard)


def _shard(run: ScoredRun, rows: Sequence[int], columns: Sequence[str]) -> dict[str, Any]:
    values = {name: _rounded(run, name, rows) for name in columns}
    files = [run.files[row] for row in rows] if run.files else []
    foreign = {"video": [video for video, _ in files], "model": [model for _, model in files]} if files else {}
    return foreign | {
        "id": [run.prompt_ids[row] for row in rows],
        "prompt": [run.prompts[row] for row in rows],
        "folder": [run.folders[row] for row in rows],
        "viewer": [int(run.prompt_ids[row] in run.viewers) for row in rows],
        "values": list(values.values()),
    }


def _rounded(run: ScoredRun, name: str, rows: Sequence[int]) -> list[float | int | None]:
    column = run.scores[name] if name in run.scores else run.numbers[name]
    decimals = measure_of(name).decimals + 1 if name in run.scores else FACTS[name][1]
    found: list[float | int | None] = []
    for value in column[list(rows)].tolist():
        rounded = round(value, decimals) if math.isfinite(value) else None
        found.append(int(rounded) if rounded is not None and rounded == int(rounded) else rounded)
    return found


def _column(name: str) -> dict[str, Any]:
    if name in FACTS:
        return {"name": name, "title": FACTS[name][0], "decimals": FACTS[name][1]}
    measure = measure_of(name)
    return {"name": name, "title": measure.title, "decimals": measure.decimals}


def _empty(run: ScoredRun, name: str) -> bool:
    column = run.numbers[name]
    return not any(math.isfinite(value) and (value or name != "cost_dollars") for value in column.tolist())


def _slices(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (items[start : start + SHARD_ROWS] for start in range(0, len(items), SHARD_ROWS))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_MESSAGE else text[:MAX_MESSAGE] + "…"
