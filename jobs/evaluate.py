"""3D assets in, scores and the paper's tables out: `im3d evaluate --run DIR`.

Exit code: 0 when every asset has scores, 1 when some have none, 2 when nothing could run or be compared.
"""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from eval.config import Up
from factory.line.settings import Pool
from jobs.settings import guarded

if TYPE_CHECKING:
    from factory.evaluation.line import Measures
    from factory.ledger.ledger import Ledger
    from factory.line.stage import Row
    from factory.storage.store import Store

SHOWN = 20
SUFFIXES = {"markdown": "md", "latex": "tex", "csv": "csv", "html": "html"}


@dataclass(kw_only=True, slots=True)
class View:
    """How views are made; what is not said is the run's own, and for a folder with --prompts the pocket preset's."""

    num_views: int | None = None
    """Views at uniform azimuths; a video must have as many frames."""
    size: int | None = None
    """Pixels of a side; a video must have as many."""
    fov_degrees: float | None = None
    """Field of view of the re-renders."""
    distance: float | None = None
    """Camera to origin in radii of the object's bounding sphere."""
    background: float = 1.0
    """Grey behind the object in [0, 1]."""
    elevation: float = 0.3
    """Elevation of the cameras in radians for assets whose own is not known."""
    up: Up = "y"
    """Which way is up in PLY and OBJ files; glTF has y."""
    normalise: bool = False
    """Move and scale Gaussians into the unit sphere, as meshes always are; for files of methods with another scale."""


@dataclass(kw_only=True, slots=True)
class Evaluate:
    """Score the assets of a run. Run it again and it scores what is missing; another protocol gets its own table."""

    run: str
    """Output folder of `im3d generate`, or with --prompts a folder of <prompt_id>.mp4, .ply or .glb; local or s3://.
    Or one of `im3d ablate`, for Tables 2 and 3."""
    prompts: str | None = None
    """Table with columns `prompt_id`, `prompt` and, if you like, `image`, for a folder that is no run of ours."""
    image_root: str | None = None
    """Folder that image paths of --prompts are relative to and may not leave; the table's own by default."""
    clip: tuple[str, ...] = ("pocket",)
    """Models that judge: 'pocket', a folder, or open_clip architectures such as ViT-B-32-quickgelu."""
    pretrained: str = "openai"
    """Which weights of the named architectures."""
    truth: str | None = None
    """Folder with assets.jsonl, or table, of the real objects: an asset whose prompt_id is an object's id, or
    <id>.<anything>, is measured against it on unseen views (PSNR, SSIM, LPIPS, IoU, depth, Chamfer, F-score)."""
    consistency: bool = False
    """Measure how far the frames contradict each other and the fit."""
    against: str | None = None
    """Another evaluated folder: compare prompt by prompt. Refused when its protocol was another."""
    beside: tuple[str, ...] = ()
    """Other evaluated folders, each a row of the tables, or outputs of `im3d ablate`, whose variants are rows of Tables
    2 and 3. Refused when their protocol was another."""
    table: tuple[Literal[1, 2, 3, 4, 5], ...] = ()
    """Print these tables of the paper with our rows beside them, and write them beside the scores."""
    form: Literal["markdown", "latex", "csv", "html"] = "markdown"
    """How tables are written."""
    label: str = "ours"
    """What the run is called in the tables."""
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
    from factory.evaluation.line import Measures, statement_of, views_of_run
    from factory.evaluation.paper_rows import is_ablation
    from factory.ledger.lease import Lease
    from factory.ledger.ledger import DEAD, SCORES, Ledger
    from factory.storage.store import open_store

    if is_ablation(open_store(job.run)):
        return _ablation(job)
    own = {} if job.prompts else views_of_run(open_store(job.run))
    protocol = Protocol(**own | {name: value for name, value in asdict(job.view).items() if value is not None})
    measures = Measures(truth=job.truth, consistency=job.consistency)
    clip = [ClipConfig(model=name, pretrained=job.pretrained) for name in job.clip]
    with Lease(open_store(job.run)):
        pool = prompt_pool(asset["prompt"] for asset in _assets(job) if asset["prompt"])
        scorers = [Scorer.load(config) for config in clip]
        statement = statement_of(protocol, scorers, measures)
        embedded = {
            scorer.name: dict(zip(pool, scorer.embed_texts(pool).numpy(), strict=True)) if pool else {}
            for scorer in scorers
        }
        folder = f"evaluations/{fingerprint(statement)}-{fingerprint({'prompts': pool})[:8]}"
        store = open_store(f"{job.run.rstrip('/')}/{folder}")
        store.put("protocol.json", json.dumps(statement | {"prompt_pool": len(pool)}, indent=2).encode())
        _refuse_incomparable(job, store)
        ledger = Ledger(store, SCORES)
        ledger.revive({row["prompt_id"] for row in ledger.rows(DEAD, ["prompt_id"])})
        arguments = {"config": protocol, "measures": measures, "clip": clip, "prompts": embedded}
        _score(job, arguments, ledger)
        return _report(job, statement, ledger, measures, [scorer.name for scorer in scorers])


def _assets(job: Evaluate) -> Iterable[Row]:
    from factory.evaluation.line import assets_of

    return assets_of(job.run, job.prompts, job.image_root)


def _refuse_incomparable(job: Evaluate, store: Store) -> None:
    """Raise ValueError, before anything is scored, for a folder that this evaluation cannot be compared with."""
    from factory.evaluation.paper_rows import is_ablation
    from factory.evaluation.score_tables import same_protocol
    from factory.storage.store import open_store

    for other in filter(None, [job.against, *(one for one in job.beside if not is_ablation(open_store(one)))]):
        same_protocol(other, store)


def _score(job: Evaluate, arguments: dict[str, Any], ledger: Ledger) -> None:
    from factory.evaluation.fidelity import truth_of, truth_paths
    from factory.evaluation.line import slices, with_truth
    from factory.evaluation.stage import step
    from factory.line.one_stage_line import line_config
    from factory.line.progress import Display
    from factory.line.run import run_line

    assets = _assets(job)
    if job.truth:
        truth_root, paths = truth_paths(job.truth)
        if not any(truth_of(asset["prompt_id"], paths) for asset in assets):
            raise ValueError(f"no prompt_id of {job.run} is the id of an object in {job.truth}; leave out --truth")
        assets = _assets(job)
        assets, arguments = with_truth(assets, paths), arguments | {"truth_root": truth_root}
    arguments |= {"root": job.run, "out": ledger.store.root, "run_id": uuid.uuid4().hex[:12]}
    for work in slices(assets, ledger):
        print(f"{work.assets.num_rows} assets to score")
        run_line(work, [step(job.pool, **arguments)], line_config(job.pool, job.address), ledger, Display())
    ledger.publish()


def _report(job: Evaluate, statement: dict[str, Any], ledger: Ledger, measures: Measures, models: list[str]) -> int:
    import numpy as np

    from eval.strict_json import as_json
    from eval.tables import own_rows
    from factory.evaluation.paper_rows import rows_beside
    from factory.evaluation.score_tables import letters, mean_columns, rank_columns, read_scores, summaries
    from factory.ledger.ledger import Ledger
    from factory.storage.store import open_store

    extra = measures.columns()
    scores = read_scores(ledger, mean_columns(models, extra) + rank_columns(models))
    failed = letters(ledger)
    dead = letters(Ledger(open_store(job.run))) if not job.prompts else {"count": 0, "by_type": {}, "named": []}
    summary = {"protocol": statement, "assets": len(scores), "without_scores": failed, "never_made": dead}
    summary |= {"scores": summaries(scores, models, extra), "costs": _costs(job)}
    print(json.dumps(statement["views"]))
    _print_columns(summary["scores"], "")
    for what, bad in (("without scores", failed), ("never made", dead)):
        print(f"{bad['count']} {what}")
        print("".join(f"  {row['prompt_id']}: {row['error_message']}\n" for row in bad["named"][:SHOWN]), end="")
    if job.truth:
        summary["without_truth"] = len(scores) - int(np.isfinite(scores.values["psnr_renders"]).sum())
        print(f"{summary['without_truth']} scored assets without truth")
    if job.against:
        summary["against"] = _against(job.against, ledger, scores, mean_columns(models, extra))
    for number in job.table:
        rows = own_rows(number, job.label, summary["scores"], models, summary["costs"])
        _table(job, number, rows + rows_beside(job.beside, number, models, ledger.store), ledger.store)
    ledger.store.put("summary.json", as_json(summary))
    print(f"{len(scores)} assets scored: {ledger.store.root}/summary.json")
    return 0 if len(scores) and not failed["count"] and not dead["count"] else 1


def _print_columns(found: dict[str, dict[str, float]], what: str) -> None:
    for column, values in found.items():
        print(f"{column}{what}: " + ", ".join(f"{name} {value:.4g}" for name, value in values.items()))


def _costs(job: Evaluate) -> dict[str, float]:
    from factory.evaluation.line import costs_of_run
    from factory.ledger.ledger import Ledger
    from factory.storage.store import open_store

    return {} if job.prompts else costs_of_run(Ledger(open_store(job.run)))


def _against(other: str, ledger: Ledger, scores: Any, names: list[str]) -> dict[str, Any]:
    """The paired comparison with another run; refuses another protocol with the difference."""
    from factory.evaluation.score_tables import comparisons, read_scores, same_protocol
    from factory.ledger.ledger import SCORES, Ledger

    theirs = read_scores(Ledger(same_protocol(other, ledger.store), SCORES), names)
    found = comparisons(scores, theirs, names)
    if not found:
        raise ValueError(f"{other} shares fewer than 2 scored prompts with this run; compare runs of the same prompts")
    _print_columns(found, f" minus {other}")
    return {"run": other, "columns": found}


def _ablation(job: Evaluate) -> int:
    """Tables 2 and 3 of an output of `im3d ablate`, which has judged its fits already."""
    from factory.evaluation.paper_rows import rows_of_ablations
    from factory.storage.store import open_store

    for number, rows in rows_of_ablations(job.run, job.label, job.beside, job.table).items():
        _table(job, number, rows, open_store(job.run))
    return 0


def _table(job: Evaluate, number: int, rows: list[tuple[Any, ...]], store: Store) -> None:
    """Print the paper's table with our rows, and keep it."""
    from eval.tables import paper_table, write

    text = write(paper_table(number, rows), job.form)
    store.put(f"table-{number}.{SUFFIXES[job.form]}", text.encode())
    print(text)


if __name__ == "__main__":
    sys.exit(main())
