"""Score finished assets in a line of one stage: `ScoreWork` is its work, `scores_schema` the table that it writes.

assets ── Evaluate ──▶ evaluations/<protocol>-<prompts>/scores/part-*.parquet, or a row in dead_letters/ there
          read the video, render the model, CLIP, and where wanted fidelity and consistency

Assets stream: a slice of them is in the driver at a time, however many there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from eval import consistency
from eval.clip import Scorer
from eval.config import JudgeConfig
from eval.protocols import Protocol
from eval.score_columns import VIEW_SETS, clip_columns, rank_columns
from factory.evaluation import fidelity
from factory.evaluation.consistency import COLUMNS
from factory.ledger.reader import ASSETS, LedgerReader
from factory.ledger.run_identity import settings_of
from factory.ledger.schemas import ERROR, by_part, chosen
from factory.line.stage import Row
from factory.stages.columns import VIEW_PLAN
from factory.storage.interface import ReadableStore
from recon.user_error import UserError

if TYPE_CHECKING:
    from eval.judges.features import FeatureModel
    from eval.judges.judge import Judge

ROWS_AT_ONCE = 16_384
"""Assets of a slice: so many rows are in the driver, and so many are scored before the models are loaded anew."""
BYTES_AT_ONCE = 64 << 20
"""A slice that holds more, for its images, ends early."""
ROWS_AT_A_TIME = 128
"""Rows that become columns together."""
SCORE_LINE = pa.schema(
    [
        pa.field("prompt_id", pa.string(), False),
        ("prompt", pa.string()),
        *[(name, pa.string()) for name in ("frames_path", "model_path", "image_path", "truth_path")],
        ("image", pa.large_binary()),  # encoded, where no file holds it
        ("elevation", pa.float64()),
        ("view_plan", VIEW_PLAN.type),  # of the video's frames
        ("yield_score", pa.float64()),
        ("error", pa.string()),  # why it cannot be scored, where that is known before
        ("attempt", pa.int32()),
    ]
)
SCORE_DEAD_LETTERS = pa.schema(
    [
        pa.field("prompt_id", pa.string(), False),
        ("prompt", pa.string()),
        *ERROR,
        ("attempt", pa.int32()),
        *[(name, pa.string()) for name in ("host", "run_id")],
    ]
)


@dataclass(kw_only=True, slots=True)
class Measures:
    """What is measured beside CLIP."""

    truth: str | None = None
    """Folder or table of the real objects, or None."""
    consistency: bool = False
    """Whether the frames agree with each other and with the fit."""
    judges: tuple[JudgeConfig, ...] = ()
    """Judges beside CLIP."""
    judged: tuple[str, ...] = ()
    """Their columns."""
    features: tuple[str, ...] = ()
    """Folders of models whose features of the views are kept, for distances between sets."""

    def feature_columns(self) -> list[str]:
        """Columns of features, by view one after the other."""
        return [f"features_{views}_{PurePath(folder).name}" for folder in self.features for views in VIEW_SETS]

    def columns(self) -> list[str]:
        """Their columns in the table of scores."""
        found = fidelity.columns() if self.truth else []
        return found + ([*COLUMNS] if self.consistency else []) + [*self.judged]

    def statement(self) -> dict[str, Any]:
        """What these columns depend on."""
        found: dict[str, Any] = {"fidelity": fidelity.STATEMENT} if self.truth else {}
        return found | ({"consistency": consistency.STATEMENT} if self.consistency else {})


def statement_of(
    protocol: Protocol, scorers: Sequence[Scorer], measures: Measures, judges: Sequence[Judge | FeatureModel] = ()
) -> dict[str, Any]:
    """Everything that scores depend on, as it is written beside them and hashed.

    Args:
        judges: those beside CLIP, and the models of features.

    Raises:
        UserError: when two models have one name.
    """
    models = {
        scorer.name: {"revision": scorer.revision, "preprocessing": repr(scorer.preprocess)} for scorer in scorers
    }
    if len(models) < len(scorers):
        raise UserError(f"two of the CLIP models are called {', '.join(models)}; rename a folder")
    models |= {judge.name: {"revision": judge.revision} | judge.statement() for judge in judges}
    statement = {"views": asdict(protocol), "models": models, "frames_background": "as in the video"}
    return statement | ({"measures": measures.statement()} if measures.statement() else {})


def scores_schema(models: Sequence[str], measures: Measures) -> pa.Schema:
    """The table of scores: each column of a CLIP score ends in the name of the model that judged."""
    fields: list[Any] = [
        pa.field("prompt_id", pa.string(), False),
        ("prompt", pa.string()),
        ("elevation", pa.float64()),
    ]
    for model in models:
        for column in clip_columns(model):
            fields += [(column, pa.float64()), (f"{column}_views", pa.list_(pa.float64()))]
        fields += [(column, pa.int64()) for column in rank_columns([model])]
    fields += [(f"cut_{model}", pa.bool_()) for model in models]
    fields += [(column, pa.float64()) for column in measures.columns()]
    fields += [(f"{column}_views", pa.list_(pa.float64())) for column in measures.judged]
    fields += [(column, pa.list_(pa.float32())) for column in measures.feature_columns()]
    return pa.schema([*fields, ("attempt", pa.int32()), ("host", pa.string()), ("run_id", pa.string())])


def assets_of_run(reader: LedgerReader) -> Iterator[Row]:
    """The assets of an output folder of `im3d generate`, one after the other: those that the reader has found.

    Raises:
        UserError: when it has none.
    """
    if not len(reader.done):
        raise UserError(
            f"{reader.store.root} holds no assets ({len(reader.dead)} dead letters); give the output of im3d "
            "generate, or a folder of videos and models with --prompts"
        )
    kept = ("prompt_id", "prompt", "elevation", "view_plan", "yield_score")
    wanted = [*kept, "ply.path", "generated.path", "image.path"]
    for row in reader.rows(ASSETS, wanted):
        files = {name: (row.get(name) or {}).get("path") for name in ("generated", "ply", "image")}
        yield {name: row.get(name) for name in kept} | {
            "frames_path": files["generated"],
            "model_path": files["ply"],
            "image_path": files["image"],
        }


def views_of_run(store: ReadableStore, asset: Row | None = None) -> dict[str, Any]:
    """What a run says of its own views, as fields of `Protocol`: number, size, field of view, distance.

    Args:
        asset: one of its assets; its view plan, where it has one, is preferred to the run's settings.
    """
    settings = settings_of(store)
    found = {name: settings.get(f"orbit.{name}") for name in ("num_views", "fov_degrees", "distance")}
    found["size"] = settings.get("image.size")
    if asset and (plan := asset.get("view_plan")):
        found |= {"num_views": len(plan["fit"] or plan["azimuths"]), "size": plan["size"] or found["size"]}
        found |= {name: plan[name] for name in ("fov_degrees", "distance")}
    return {name: value for name, value in found.items() if value is not None}


def costs_of_run(ledger: LedgerReader) -> dict[str, float]:
    """Means over the run's assets: `minutes`, and the video model's `steps` and `forwards` (guidance doubles these)."""
    wanted = ("seconds", "steps", "forwards")
    sums, count = dict.fromkeys(("minutes", "steps", "forwards"), 0.0), 0
    for row in ledger.rows(ASSETS, lambda name: name.partition("_")[0] in wanted):
        count += 1
        sums["minutes"] += sum(row[name] or 0.0 for name in by_part(row, "seconds").values())
        for kind in ("steps", "forwards"):
            sums[kind] += sum(row[name] or 0 for part, name in by_part(row, kind).items() if part != "image")
    sums["minutes"] /= 60
    return {name: total / count for name, total in sums.items()} if count else {}


def with_truth(rows: Iterable[Row], paths: Mapping[str, str]) -> Iterator[Row]:
    """The rows with the path of the real object of each that has one."""
    return (row | {"truth_path": fidelity.truth_of(row["prompt_id"], paths)} for row in rows)


def slices(rows: Iterable[Row], ledger: LedgerReader, size: int = ROWS_AT_ONCE) -> Iterator[ScoreWork]:
    """The rows that have no outcome yet, at most `size` and about BYTES_AT_ONCE at a time, as columns."""
    stream, tables = iter(rows), list[pa.Table]()
    while read := list(islice(stream, min(size, ROWS_AT_A_TIME))):
        left = [read[place] for place in ledger.missing([row["prompt_id"] for row in read])]
        tables.append(pa.Table.from_pylist(left, schema=SCORE_LINE))
        held = sum(table.num_rows for table in tables)
        if held + ROWS_AT_A_TIME > size or sum(table.nbytes for table in tables) > BYTES_AT_ONCE:
            yield from _work(tables)
            tables = []
    yield from _work(tables)


def _work(tables: Sequence[pa.Table]) -> Iterator[ScoreWork]:
    joined = pa.concat_tables([SCORE_LINE.empty_table(), *tables]).combine_chunks()
    if joined.num_rows:
        yield ScoreWork(assets=joined)


@dataclass(kw_only=True, slots=True)
class ScoreWork:
    """Assets as `work.Work`: a table of SCORE_LINE."""

    assets: pa.Table

    @property
    def ids(self) -> Sequence[str]:
        """Of all assets."""
        return self.assets["prompt_id"].to_pylist()

    def table(self, rows: Sequence[int], attempt: int) -> pa.Table:
        """Rows of SCORE_LINE of the assets at these places."""
        taken, place = self.assets.take(pa.array(rows, pa.int64())), SCORE_LINE.get_field_index("attempt")
        return taken.set_column(place, SCORE_LINE.field(place), pa.array([attempt] * len(rows), pa.int32()))

    def killed(self, row: int, error: Row) -> tuple[Row, pa.Schema]:
        """The dead letter of an asset that ended its worker."""
        asset = self.assets.slice(row, 1).to_pylist()[0]
        return chosen(asset | error, SCORE_DEAD_LETTERS), SCORE_DEAD_LETTERS
