"""Score 3D assets and print the paper's tables: `im3d evaluate --run DIR`.

Exit code: 0 when every asset has scores, 1 when some have none, 2 when nothing could run or be compared.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from eval.config import Up
from factory.line.placement import Pool
from jobs.base import LineJob, start
from recon.user_error import UserError

if TYPE_CHECKING:
    from eval.protocols import Protocol
    from factory.evaluation.judging import Assets
    from factory.line.output_folder import OutputFolder
    from factory.storage.interface import Store


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
    background: float | None = None
    """Grey behind the object in [0, 1]; 1 unless said."""
    elevation: float | None = None
    """Elevation of the cameras in radians for assets whose own is not known; 0.3 unless said."""
    up: Up = "y"
    """Which way is up in PLY and OBJ files; glTF has y."""
    normalise: bool | None = None
    """Move and scale Gaussians into the unit sphere, as meshes always are; for files of methods with another scale."""


@dataclass(kw_only=True, slots=True)
class Evaluate(LineJob):
    """Score the assets of a run. Run it again and it scores what is missing; another protocol gets its own table."""

    run: str
    """Output folder of `im3d generate`, or with --prompts a folder of <prompt_id>.mp4, .ply or .glb; local or s3://.
    Or one of `im3d ablate`, for Tables 2 and 3."""
    out: str | None = None
    """Folder below which `evaluations/` lies where RUN is not to be written to, local or s3://; RUN by default."""
    prompts: str | None = None
    """Table with columns `prompt_id`, `prompt` and, if you like, `image`, for a folder that is no run of ours."""
    image_root: str | None = None
    """Folder that image paths of --prompts are relative to and may not leave; the table's own by default."""
    image_hosts: tuple[str, ...] = ()
    """Hosts that images of --prompts may be fetched from by https:// addresses; none by default."""
    clip: tuple[str, ...] = ("pocket",)
    """Models that judge: 'pocket', a folder, or open_clip architectures such as ViT-B-32-quickgelu."""
    pretrained: str = "openai"
    """Which weights of the named architectures."""
    weights: str | None = None
    """Folder, local or s3://, that `im3d weights pull` filled: networks of its catalogue are taken from it."""
    protocol: Literal["im3d", "trellis", "t3bench", "gpteval3d"] = "im3d"
    """Whose views: ours, or those that others published, see docs/evaluation.md. gpteval3d also writes the pictures
    that its script reads, `method/` beside the scores."""
    judges: tuple[str, ...] = ()
    """Judges beside CLIP with their weights: lpips-vgg=FILE, lpips-alex=FILE, dists=FILE, vqa=FOLDER."""
    reference: str | None = None
    """Folder of pictures of real objects, for Fréchet and kernel distances; those of one subfolder show one object."""
    features: tuple[str, ...] = ()
    """Folders of DINOv2 or CLIP models whose features these distances are of."""
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
    return start("evaluate", Evaluate, run, argv)


def run(job: Evaluate) -> int:
    """Score what has no scores yet, then report; returns the exit code. Raises UserError for the user."""
    from eval.clip import Scorer
    from eval.config import ClipConfig
    from eval.similarity import fingerprint, prompt_pool
    from factory.evaluation.judging import Assets, Judging
    from factory.evaluation.line import statement_of, views_of_run
    from factory.evaluation.paper_rows import is_ablation
    from factory.ledger.ledger import SCORES
    from factory.line.output_folder import open_output
    from factory.storage.read_only import open_read_only
    from factory.weights.folder import local_judge, resolved_judge
    from jobs.evaluation_report import report

    source = open_read_only(job.run, job.storage)
    if is_ablation(source):
        return _ablation(job)
    assets = Assets.open(job.run, job.prompts, job.image_root, job.storage, job.image_hosts)
    own = {} if job.prompts or job.protocol != "im3d" else views_of_run(source, next(iter(assets.rows()), None))
    protocol = _protocol(job, own)
    judging = Judging.load(job.judges, job.features, job.reference, job.truth, job.consistency, job.storage)
    named = [ClipConfig(model=name, pretrained=job.pretrained) for name in job.clip]
    clip = [resolved_judge(job.weights, config) for config in named]
    pool = prompt_pool(asset["prompt"] for asset in assets.rows() if asset["prompt"])
    scorers = [Scorer.load(local_judge(config)) for config in clip]
    statement = statement_of(protocol, scorers, judging.measures, judging.judges) | judging.reference_statement()
    embedded = {
        scorer.name: dict(zip(pool, scorer.embed_texts(pool).numpy(), strict=True)) if pool else {}
        for scorer in scorers
    }
    name = f"{fingerprint(statement)}-{fingerprint({'prompts': pool})[:8]}"
    with open_output(f"{_place(job)}/{name}", job.storage, SCORES) as folder:
        folder.store.put("protocol.json", json.dumps(statement | {"prompt_pool": len(pool)}, indent=2).encode())
        _refuse_incomparable(job, folder.store)
        judging.embed_reference(protocol)
        folder.ledger.requeue()
        arguments = {"config": protocol, "measures": judging.measures, "clip": clip, "prompts": embedded}
        _score(job, arguments, assets, folder)
        return report(job, statement, assets, folder, judging, [scorer.name for scorer in scorers])


def _protocol(job: Evaluate, own: dict[str, Any]) -> Protocol:
    """The protocol of the flags and of what a run says of its own views."""
    from eval.protocols import protocol_of

    if job.protocol != "im3d" and (job.truth or job.consistency):
        raise UserError(
            f"--truth and --consistency look by protocol im3d; leave them out with --protocol {job.protocol}"
        )
    return protocol_of(job.protocol, **own | {name: v for name, v in asdict(job.view).items() if v is not None})


def _place(job: Evaluate) -> str:
    """The folder of all evaluations."""
    return f"{(job.out or job.run).rstrip('/')}/evaluations"


def _refuse_incomparable(job: Evaluate, store: Store) -> None:
    """Raise UserError, before anything is scored, for a folder that this evaluation cannot be compared with."""
    from factory.evaluation.paper_rows import is_ablation
    from factory.evaluation.score_tables import same_protocol
    from factory.storage.read_only import open_read_only

    beside = [other for other in job.beside if not is_ablation(open_read_only(other, job.storage))]
    for other in filter(None, [job.against, *beside]):
        same_protocol(other, store, job.storage)


def _score(job: Evaluate, arguments: dict[str, Any], assets: Assets, folder: OutputFolder) -> None:
    from factory.evaluation.fidelity import truth_of, truth_paths
    from factory.evaluation.line import slices, with_truth
    from factory.evaluation.stage import step
    from factory.line.one_stage_line import line_config

    rows = assets.rows()
    if job.truth:
        truth_root, paths = truth_paths(job.truth, job.storage)
        if not any(truth_of(asset["prompt_id"], paths) for asset in rows):
            raise UserError(f"no prompt_id of {job.run} is the id of an object in {job.truth}; leave out --truth")
        rows, arguments = with_truth(assets.rows(), paths), arguments | {"truth_root": truth_root}
    arguments |= {"root": job.run, "out": folder.store.root, "run_id": folder.run_id, "storage": job.storage}
    for work in slices(rows, folder.ledger):
        line = line_config(job.pool, job.address, job.runner)
        folder.run(work, [step(job.pool, **arguments)], line, job.cost, "assets", "score")


def _ablation(job: Evaluate) -> int:
    """Tables 2 and 3 of an output of `im3d ablate`, which has judged its fits already."""
    from factory.evaluation.paper_rows import rows_of_ablations
    from factory.ledger.lease import Lease
    from factory.storage.store import open_store
    from jobs.evaluation_report import write_table

    store = open_store(f"{_place(job)}/tables", job.storage)
    tables = rows_of_ablations(job.run, job.label, job.beside, job.table, job.storage)
    with Lease(store):
        for number, rows in tables.items():
            write_table(job, number, rows, store)
    return 0


if __name__ == "__main__":
    sys.exit(main())
