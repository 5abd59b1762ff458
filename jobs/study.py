"""Make, serve and score a human study of two or more runs: `im3d study make`, `im3d study serve`, `im3d study score`.

Exit code: 0 when all is well, 1 when something was left out or refused by name, 2 when nothing could be done.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

import tyro

from eval.answers import Thresholds
from eval.assignment import StudyConfig
from jobs.base import Job, start
from jobs.help import parse_flags
from recon.user_error import UserError


@dataclass(kw_only=True, slots=True)
class Make(Job):
    """Build the page and the assignment table of a study. The first run is ours, the others are its competitors."""

    runs: tuple[str, ...]
    """Outputs of `im3d generate`, or with --prompts folders of <prompt_id>.mp4 of anyone's method; local or s3://."""
    out: str
    """Folder of the study; its folder page/ is what annotators see."""
    labels: tuple[str, ...] = ()
    """What the runs are called in the results; the folders' names by default."""
    prompts: str | None = None
    """Table with columns `prompt_id`, `prompt` and, if you like, `image`, for folders that are no runs of ours."""
    image_root: str | None = None
    """Folder that image paths of --prompts are relative to and may not leave; the table's own by default."""
    image_hosts: tuple[str, ...] = ()
    """Hosts that images of --prompts may be fetched from by https:// addresses; none by default."""
    limit: int | None = None
    """Only the first prompts."""
    study: Annotated[StudyConfig, tyro.conf.arg(name="")] = field(default_factory=StudyConfig)


@dataclass(kw_only=True, slots=True)
class Serve(Job):
    """Hand out the page and collect answers in DIR/answers, until Ctrl-C."""

    study: str
    """Folder of the study, on local disk."""
    host: str = "127.0.0.1"
    """Where to listen; 0.0.0.0 lets other machines in. Put a server with HTTPS in front of it on the internet."""
    port: int = 8360
    """0 takes a free one."""


@dataclass(kw_only=True, slots=True)
class Score(Job):
    """Turn answers into win rates. Writes DIR/results: scores.json, annotators.csv, consensus.csv, rates.csv."""

    study: str
    """Folder of the study."""
    answers: tuple[str, ...] = ()
    """Answer files, or folders of them; DIR/answers by default."""
    thresholds: Annotated[Thresholds, tyro.conf.arg(name="")] = field(default_factory=Thresholds)
    form: Literal["markdown", "latex", "csv", "html"] = "markdown"
    """How the table is written."""


AnyStudy: Any = (
    Annotated[Make, tyro.conf.subcommand("make")]
    | Annotated[Serve, tyro.conf.subcommand("serve")]
    | Annotated[Score, tyro.conf.subcommand("score")]
)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, report; returns the exit code."""
    return start("study", AnyStudy, run, argv, _parse)


def _parse(arguments: list[str]) -> Any:
    return parse_flags(AnyStudy, arguments, "im3d study", description=__doc__)


def run(job: Make | Serve | Score) -> int:
    """Do the job; returns the exit code. Raises UserError for the user."""
    if isinstance(job, Make):
        return make(job)
    return serve(job) if isinstance(job, Serve) else score(job)


def make(job: Make) -> int:
    """Write the study's folder."""
    from factory.evaluation.study.folder import write_study
    from factory.evaluation.study.media import method_of_run
    from factory.ledger.lease import Lease
    from factory.storage.store import open_store

    labels = job.labels or tuple(run.rstrip("/").rsplit("/", 1)[-1] for run in job.runs)
    if len(labels) != len(job.runs):
        raise UserError(f"{len(labels)} labels for {len(job.runs)} runs; give one each")
    if job.limit is not None and job.limit < 1:
        raise UserError(f"limit is {job.limit}; it must be at least 1")
    methods = [
        method_of_run(label, place, job.storage, job.prompts, job.image_root, job.image_hosts)
        for label, place in zip(labels, job.runs)
    ]
    store = open_store(job.out, job.storage)
    with Lease(store):
        record = write_study(methods, store, job.study, job.limit)
    pairs = ", ".join(f"{count} with {label}" for label, count in record["competitors"].items())
    print(f"{record['questions']} questions on pairs of {record['ours']}: {pairs}; {record['pairs_left_out']} left out")
    print(f"{record['annotators']} annotators, {record['screens']} screens with the checks; links: {job.out}/links.csv")
    if record["without_image"]:
        print(f"{record['without_image']} prompts have no reference image: alignment is asked with the prompt alone")
    if record["videos_reencoded"]:
        print(f"{record['videos_reencoded']} videos written anew as h264, which every browser plays")
    print("\n".join(f"  left out: {problem}" for problem in record["problems"]), end="\n" * bool(record["problems"]))
    print(f"page: {job.out}/page/index.html; collect answers with: im3d study serve --study {job.out}")
    return 1 if record["problems"] else 0


def serve(job: Serve) -> int:
    """Serve until interrupted."""
    from pathlib import Path

    from eval.collector import Collector
    from factory.evaluation.study.folder import keep_answers, read_study
    from factory.storage.local import LocalStore

    if "://" in job.study:
        raise UserError(f"{job.study} is no folder on local disk; copy the study there to serve it")
    store = LocalStore(job.study)
    study, tasks = read_study(store)

    def keep(annotator: str, data: bytes) -> bool:
        kept = keep_answers(store, annotator, data)
        print(f"{annotator}: {'answers kept' if kept else 'refused, has other answers'}", flush=True)
        return kept

    try:
        server = Collector(
            (job.host, job.port), Path(job.study, "page"), study, {task.task_id: task for task in tasks}, keep
        )
    except OSError as error:
        raise UserError(f"cannot listen on {job.host}:{job.port}: {error}; choose another --port") from error
    with server:
        print(f"{server.url}?a=CODE, with the codes of {job.study}/links.csv; Ctrl-C ends", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("stopped")
    return 0


def score(job: Score) -> int:
    """Print the table and who was rejected; write the tables into the study's folder."""
    from eval.preference import as_csv, preference_table, score_study
    from eval.strict_json import as_json
    from eval.tables import write
    from factory.evaluation.study.folder import read_answers, read_study
    from factory.ledger.lease import Lease
    from factory.storage.read_only import open_read_only
    from factory.storage.store import open_store

    store = open_read_only(job.study, job.storage)
    study, tasks = read_study(store)
    texts = read_answers(job.answers or (f"{job.study.rstrip('/')}/answers",), job.storage)
    result = score_study(study, tasks, texts, job.thresholds)
    results = open_store(f"{store.root}/results", job.storage)
    with Lease(results):
        for name in ("annotators", "consensus", "rates"):
            results.put(f"{name}.csv", as_csv(getattr(result, name)).encode())
        results.put("scores.json", as_json(asdict(result) | {"thresholds": asdict(job.thresholds)}))
    print(write(preference_table(result.rates), job.form))
    rejected = [one for one in result.annotators if one.rejected]
    print(f"{len(result.annotators)} annotators, {len(rejected)} rejected; {result.short} questions lack votes")
    print("".join(f"  rejected {one.annotator}: {one.rejected}\n" for one in rejected), end="")
    print("".join(f"  not used: {problem}\n" for problem in result.problems), end="")
    if result.changed:
        print(f"{result.changed} answers replaced by later ones")
    print(f"tables: {job.study.rstrip('/')}/results")
    return 1 if result.problems or result.short else 0


if __name__ == "__main__":
    sys.exit(main())
