"""3D assets in, CLIP scores out: `im3d evaluate --run DIR`.

Exit code: 0 when every asset has scores, 1 when some have none, 2 when nothing could run or be compared.
"""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from factory.config import Pool
from jobs.settings import guarded

if TYPE_CHECKING:
    from eval.similarity import Protocol
    from factory.ledger import Ledger
    from factory.store import Store

PRECISION_AT = (1, 5, 10)


@dataclass(kw_only=True, slots=True)
class View:
    """How views are made; the defaults are those of the pocket preset."""

    num_views: int = 16
    """Views at uniform azimuths; a video must have as many frames."""
    size: int = 128
    """Pixels of a side; a video must have as many."""
    background: float = 1.0
    """Grey behind the object in [0, 1]."""
    elevation: float = 0.3
    """Elevation of the cameras in radians for assets whose own is not known."""


@dataclass(kw_only=True, slots=True)
class Evaluate:
    """Score the assets of a run. Run it again and it scores what is missing; another protocol gets its own table."""

    run: str
    """Output folder of `im3d generate`, or with --prompts a folder of <prompt_id>.mp4, .ply or .glb; local or s3://."""
    prompts: str | None = None
    """Table with columns `prompt_id`, `prompt` and, if you like, `image`, for a folder that is no run of ours."""
    clip: tuple[str, ...] = ("pocket",)
    """Models that judge: 'pocket', a folder, or open_clip architectures such as ViT-B-32-quickgelu."""
    pretrained: str = "openai"
    """Which weights of the named architectures."""
    against: str | None = None
    """Another evaluated folder: compare prompt by prompt. Refused when its protocol was another."""
    table: Literal[1, 2, 3, 4, 5] | None = None
    """Print this table of the paper with the run's rows beside it."""
    form: Literal["markdown", "latex", "csv", "html"] = "markdown"
    """How the table is written."""
    label: str = "ours"
    """What the run is called in the table."""
    address: str = "local"
    """'local' starts Ray on this machine; 'auto' or a ray:// address joins a cluster."""
    pool: Pool = field(default_factory=lambda: Pool(batch=4))
    view: Annotated[View, tyro.conf.arg(name="")] = field(default_factory=View)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, report; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: run(tyro.cli(Evaluate, args=arguments, prog="im3d evaluate")))


def run(job: Evaluate) -> int:
    """Score what has no scores yet, then report; returns the exit code. Raises ValueError for the user."""
    from eval.clip import Scorer
    from eval.config import ClipConfig
    from eval.similarity import Protocol, fingerprint, prompt_pool
    from factory.lease import Lease
    from factory.ledger import DEAD, SCORES, Ledger
    from factory.store import open_store

    protocol = Protocol(**asdict(job.view))
    clip = [ClipConfig(model=name, pretrained=job.pretrained) for name in job.clip]
    with Lease(open_store(job.run)):
        assets, dead = _assets(job)
        pool = prompt_pool([asset["prompt"] for asset in assets if asset["prompt"]])
        scorers = [Scorer.load(config) for config in clip]
        statement = _statement(protocol, scorers)
        embedded = {
            scorer.name: dict(zip(pool, scorer.embed_texts(pool).numpy(), strict=True)) if pool else {}
            for scorer in scorers
        }
        folder = f"evaluations/{fingerprint(statement)}-{fingerprint({'prompts': pool})[:8]}"
        store = open_store(f"{job.run.rstrip('/')}/{folder}")
        store.put("protocol.json", json.dumps(statement | {"prompt_pool": len(pool)}, indent=2).encode())
        ledger = Ledger(store, SCORES)
        ledger.revive({row["prompt_id"] for row in ledger.rows(DEAD, ["prompt_id"])})
        _score(job, assets, clip, embedded, protocol, ledger)
    return _report(job, statement, ledger, dead, [scorer.name for scorer in scorers])


def _assets(job: Evaluate) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    from factory.evaluation import assets_of_folder, assets_of_run
    from factory.ledger import Ledger
    from factory.store import open_store

    store, dead = open_store(job.run), []
    if job.prompts:
        assets = assets_of_folder(store, job.run, job.prompts)
    else:
        ledger = Ledger(store)
        ledger.publish()
        assets, dead = assets_of_run(ledger)
    if not assets:
        raise ValueError(
            f"{job.run} holds no assets ({len(dead)} dead letters); give the output of im3d generate, "
            "or a folder of videos and models with --prompts"
        )
    return assets, dead


def _statement(protocol: Protocol, scorers: Sequence[Any]) -> dict[str, Any]:
    """Everything that scores depend on, as it is written beside them and hashed."""
    models = {
        scorer.name: {"revision": scorer.revision, "preprocessing": repr(scorer.preprocess)} for scorer in scorers
    }
    if len(models) < len(scorers):
        raise ValueError(f"two of the CLIP models are called {', '.join(models)}; rename a folder")
    return {"views": asdict(protocol), "models": models, "frames_background": "as in the video"}


def _score(
    job: Evaluate, assets: list[dict[str, Any]], clip: Sequence[Any], embedded: Any, protocol: Protocol, ledger: Ledger
) -> None:
    from factory.evaluation import ScoreWork, line_config, step
    from factory.pipeline import run_line
    from factory.progress import Display

    missing = sum(asset["prompt_id"] not in ledger for asset in assets)
    if not missing:
        ledger.publish()
        return
    print(f"{missing} of {len(assets)} assets to score")
    arguments = {"config": protocol, "clip": clip, "prompts": embedded, "root": job.run, "out": ledger.store.root}
    chain = [step(job.pool, **arguments, run_id=uuid.uuid4().hex[:12])]
    run_line(ScoreWork(assets=assets), chain, line_config(job.pool, job.address), ledger, Display())


def _report(
    job: Evaluate, statement: dict[str, Any], ledger: Ledger, dead: list[dict[str, Any]], models: list[str]
) -> int:
    from factory.ledger import DEAD, SCORES

    rows = list(ledger.rows(SCORES))
    failed = list(ledger.rows(DEAD))
    summary = {"protocol": statement, "assets": len(rows), "without_scores": _named(failed), "never_made": _named(dead)}
    summary["scores"] = _summaries(rows, models)
    print(json.dumps(statement["views"]))
    for column, values in summary["scores"].items():
        print(f"{column}: " + ", ".join(f"{name} {value:.4g}" for name, value in values.items()))
    for what, letters in (("without scores", failed), ("never made", dead)):
        print(f"{len(letters)} {what}")
        print("\n".join(f"  {row['prompt_id']}: {row['error_message']}" for row in letters[:20]))
    if job.against:
        summary["against"] = {"run": job.against, "columns": _compare(job.against, ledger.store, rows)}
        for column, values in summary["against"]["columns"].items():
            print(f"{column} minus {job.against}: " + ", ".join(f"{name} {v:.4g}" for name, v in values.items()))
    if job.table is not None:
        print(_table(job, job.table, summary["scores"], models))
    ledger.store.put("summary.json", json.dumps(summary, indent=2).encode())
    print(f"{len(rows)} assets scored: {ledger.store.root}/summary.json")
    return 0 if rows and not failed and not dead else 1


def _table(job: Evaluate, number: int, scores: dict[str, dict[str, float]], models: list[str]) -> str:
    from eval.tables import own_rows, paper_table, write
    from factory.evaluation import costs_of_run
    from factory.ledger import Ledger
    from factory.store import open_store

    costs = {} if job.prompts else costs_of_run(Ledger(open_store(job.run)))
    return write(paper_table(number, own_rows(number, job.label, scores, models, costs)), job.form)


def _named(letters: list[dict[str, Any]]) -> list[dict[str, str]]:
    return [{name: row[name] for name in ("prompt_id", "error_type", "error_message")} for row in letters]


def _summaries(rows: list[dict[str, Any]], models: list[str]) -> dict[str, dict[str, float]]:
    """By column: the summary over prompts, and R-precision at k in per cent."""
    from eval.similarity import VIEW_SETS, columns
    from eval.statistics import summarise

    found = {}
    for column in [column for model in models for column in columns(model)]:
        values = _by_prompt(rows, column)
        if values:
            found[column] = asdict(summarise([*values.values()]))
    for column in [f"rank_text_{views}_{model}" for model in models for views in VIEW_SETS]:
        ranks = [row[column] for row in rows if row[column] is not None]
        if ranks:
            found[column.replace("rank", "r_precision")] = {
                f"at_{k}": 100 * sum(rank < k for rank in ranks) / len(ranks) for k in PRECISION_AT
            } | {"count": len(ranks)}
    return found


def _by_prompt(rows: list[dict[str, Any]], column: str) -> dict[str, float]:
    from eval.statistics import by_prompt

    known = [row for row in rows if row.get(column) is not None]
    return by_prompt([row["prompt"] for row in known], [row[column] for row in known])


def _compare(other: str, store: Store, rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Paired comparisons over the prompts that both have; refuses another protocol with the difference."""
    from eval.statistics import compare
    from factory.ledger import SCORES, Ledger
    from factory.store import open_store

    there = list(Ledger(open_store(_same_protocol(other, store)), SCORES).rows(SCORES))
    found = {}
    for column in (
        [name for name in rows[0] if name.startswith("clip_") and not name.endswith("_views")] if rows else []
    ):
        own, theirs = _by_prompt(rows, column), _by_prompt(there, column)
        shared = sorted(own.keys() & theirs.keys())
        if len(shared) >= 2:
            result = asdict(compare([own[name] for name in shared], [theirs[name] for name in shared]))
            left_out = len(own) + len(theirs) - 2 * len(shared)
            found[column] = result | {"prompts_left_out": left_out}
    if not found:
        raise ValueError(f"{other} shares fewer than 2 scored prompts with this run; compare runs of the same prompts")
    return found


def _same_protocol(other: str, store: Store) -> str:
    """The evaluation of the folder `other` that was made as the one in `store`."""
    from factory.store import open_store

    own, name = json.loads(store.get("protocol.json")), store.root.rstrip("/").rsplit("/", 1)[1].split("-")[0]
    place = open_store(other)
    keys = [key for key in place.keys("evaluations/") if key.endswith("/protocol.json")]
    if not keys:
        raise ValueError(f"{other} has no evaluation; run im3d evaluate --run {other} with the same flags first")
    for key in keys:
        if key.split("/")[1].split("-")[0] == name:
            return f"{other.rstrip('/')}/{key.rsplit('/', 1)[0]}"
    theirs = json.loads(place.get(keys[-1]))
    changes = [
        f"{part}: {own[part]} here, {theirs[part]} there" for part in ("views", "models") if own[part] != theirs[part]
    ]
    raise ValueError(
        f"{other} was evaluated by another protocol ({'; '.join(changes)}): evaluate it with the same flags"
    )


if __name__ == "__main__":
    sys.exit(main())
