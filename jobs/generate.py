"""Generate 3D assets from prompts: `im3d generate --prompts FILE --out DIR`.

Exit code: 0 when every prompt of the table has its asset, 1 when some are dead letters or unfinished,
2 when the arguments, the table or the machine do not allow a run.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated

import tyro

from factory.config.settings import FactoryConfig, Preset
from jobs.base import start
from jobs.settings import parse
from recon.user_error import UserError

MAX_REPORTED = 10_000
"""The tables at the end are about so many newest rows."""

if TYPE_CHECKING:
    from factory.ledger.ledger import Ledger
    from factory.line.output_folder import OutputFolder
    from factory.prompts.prompt_table import PromptTable
    from factory.stages.survey import Need


@dataclass(kw_only=True, slots=True)
class Generate:
    """Make a 3D asset of every prompt of a table. Run it again, after a crash too, and it makes what is missing."""

    prompts: str = ""
    """Table of prompts, a local path or s3:// address: .txt (a prompt a line), or .csv, .tsv, .jsonl, .parquet, .arrow
    with a column `prompt` and, if you like, `prompt_id`, `seed` and `image` (bytes or path: image to 3D); text also as
    .gz or .zst. Or a folder of such files, or a pattern as 'DIR/part-*.parquet'."""
    suite: str = ""
    """A published suite instead: dreamfusion, t3bench-single, t3bench-surr, t3bench-multi or gpteval3d."""
    suite_path: str = ""
    """The suite's file, or the folder that has it; nothing is downloaded."""
    out: str
    """Output folder, a local path or s3:// address; made if missing."""
    preset: Preset = "pocket"
    """Settings to start from: 'pocket' runs on two CPU cores, 'paper' wants CUDA GPUs."""
    config: str | None = None
    """YAML file of settings, read before the flags; the config.yaml of another run will do."""
    limit: int | None = None
    """Only the first rows of the table."""
    image_root: str | None = None
    """Folder that image paths in the table may not leave; the table's own by default."""
    image_hosts: tuple[str, ...] = ()
    """Hosts that images may be fetched from by https:// addresses in the table; none by default."""
    new_run: bool = False
    """Where the folder's outcomes were made with other settings or weights, make everything anew in
    OUT/runs/<hash of both>, and resume there the next time."""
    accept_changes: bool = False
    """Go on in a folder whose outcomes were made with other settings or weights, and mix."""
    dry_run: int | None = None
    """Make only so many prompts, at least 2, in another folder, and estimate time, cost and storage of the table."""
    dry_run_out: str | None = None
    """Keep the sample of --dry-run in this empty folder, local or s3://; without it in one that goes again."""
    settings: Annotated[FactoryConfig, tyro.conf.arg(name="")] = field(default_factory=FactoryConfig)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, report; returns the exit code."""
    return start("generate", Generate, run, argv, lambda arguments: parse(Generate, arguments))


def run(job: Generate) -> int:
    """Make what the output folder lacks; returns the exit code. Raises UserError and RuntimeError for the user."""
    from factory.ledger.run_identity import add_input, is_new
    from factory.line.output_folder import open_output
    from factory.prompts.prompt_table import read_prompts
    from factory.stages.preflight import preflight
    from factory.storage.read_only import open_read_only

    storage = job.settings.storage
    if job.dry_run is not None:
        from factory.prompts.suites import read_choice
        from jobs.dry_run import dry_run

        table = read_choice(job.prompts, job.suite, job.suite_path, job.limit, job.image_root, storage, job.image_hosts)
        return dry_run(job.settings, table, job.dry_run, job.dry_run_out)
    job = _with_prompts(job)
    table = read_prompts(job.prompts, job.limit, job.image_root, storage, job.image_hosts)
    job = _placed(job)
    if table.prompts and is_new(open_read_only(job.out, storage)):
        preflight(job.settings)  # before anything is written
    with open_output(job.out, storage) as folder:
        needed = bool(len(folder.ledger.missing(table.prompts.ids))) or job.settings.quality.retries > 0
        needs = check_changes(job, folder, needed)
        source = {"prompts": job.prompts, "limit": job.limit, "image_root": job.image_root}
        add_input(folder.store, source | {"image_hosts": list(job.image_hosts)})
        _dead_letter_rejected(job, table, folder.ledger)
        return make(job, table, folder, needs)


def _with_prompts(job: Generate) -> Generate:
    """The job, with the suite's table in its folder where it names a suite."""
    from factory.prompts.suites import check_choice, write_suite
    from factory.storage.store import open_store

    check_choice(job.prompts, job.suite, job.suite_path)
    if job.prompts:
        return job
    return replace(job, prompts=write_suite(open_store(job.out, job.settings.storage), job.suite, job.suite_path))


def _placed(job: Generate) -> Generate:
    """The job, with its folder below OUT where --new-run asks for that."""
    from factory.config.settings import run_settings
    from factory.ledger import run_identity
    from factory.stages.preflight import find_networks, weights_of
    from factory.storage.read_only import open_read_only

    if not job.new_run:
        return job
    if job.accept_changes:
        raise UserError("--new-run and --accept-changes exclude each other; give one of them")
    weights, settings = weights_of(find_networks(job.settings)), run_settings(job.settings)
    if not run_identity.changes(open_read_only(job.out, job.settings.storage), settings, weights):
        return job
    return replace(job, out=run_identity.folder_of_new_run(job.out, settings.fingerprint, weights), new_run=False)


def check_changes(job: Generate, folder: OutputFolder, needs_weights: bool) -> list[Need]:
    """Refuse to mix outcomes of different settings or weights, else write down what is used now.

    Args:
        needs_weights: rows will be made, so that the weights must be there.

    Returns:
        The networks that were found; none where no rows will be made.
    """
    from factory.config.settings import run_settings
    from factory.ledger import run_identity
    from factory.stages.preflight import find_networks, weights_of

    used, ledger = run_settings(job.settings), folder.ledger
    settled = 0 if job.accept_changes else len(ledger.done) + len(ledger.dead)
    run_identity.check_unchanged(folder.store, used, None, settled)
    needs = find_networks(job.settings) if needs_weights else []
    weights = weights_of(needs) if needs_weights else None
    run_identity.check_unchanged(folder.store, used, weights, settled)
    run_identity.write(folder.store, used, weights)
    return needs


def make(job: Generate, table: PromptTable, folder: OutputFolder, needs: Sequence[Need]) -> int:
    """Make what the folder lacks of a table by the networks of `check_changes`, and report; returns the exit code.

    A stopped run leaves the page too.
    """
    from factory.outputs.gallery import write_gallery
    from factory.stages.preflight import describe
    from jobs.prompt_line import run_prompts

    missing = len(folder.ledger.missing(table.prompts.ids))
    if missing:
        settled = len(table.prompts) - missing
        print(f"{settled} prompts settled before, {len(table.rejected)} rows unusable")
        print(f"Networks: {describe(needs) or 'none'}")
        if late := job.settings.late_rounds():
            rounds, end = ", ".join(map(str, late)), job.settings.fit.iterations
            print(f"No refinement after {rounds} iterations: the fit ends after {end}; see --refine.rounds-at")
    try:
        run_prompts(job.settings, table.prompts, folder, needs)
    except (KeyboardInterrupt, RuntimeError):
        if not folder.lease.lost:
            write_gallery(folder.store, folder.ledger, job.settings)
        raise
    return _report(job, table, folder)


def _dead_letter_rejected(job: Generate, table: PromptTable, ledger: Ledger) -> None:
    from factory.config.settings import fingerprint
    from factory.ledger.schemas import empty_row
    from factory.line.stage import dead_letter

    rows = [
        empty_row(prompt_id=row.prompt_id, prompt=row.prompt, attempt=1)
        | {"error_stage": "prompts", "error_type": row.error_type, "error_message": row.error_message}
        for row in table.rejected
        if row.prompt_id not in ledger
    ]
    ledger.add_dead_letters(dead_letter(row, fingerprint(job.settings)) for row in rows)


def _report(job: Generate, table: PromptTable, folder: OutputFolder) -> int:
    from factory.ledger.keys import KeySet
    from factory.ledger.ledger import ASSETS, DEAD
    from factory.line.summary import dead_table, is_summed, make_console, summary_table
    from factory.outputs.gallery import write_gallery

    ledger = folder.ledger
    write_gallery(folder.store, ledger, job.settings)
    keys = table.keys
    known, made, dead = KeySet(keys), int(ledger.done.find(keys).sum()), int(ledger.dead.find(keys).sum())
    console = make_console()
    if made:
        newest = ledger.rows(ASSETS, is_summed, newest=MAX_REPORTED)
        console.print(summary_table([row for row in newest if row["prompt_id"] in known]))
    if dead:
        console.print(dead_table([row for row in ledger.rows(DEAD, newest=MAX_REPORTED) if row["prompt_id"] in known]))
    print(f"{made} of {len(table)} prompts have an asset, {dead} are dead letters: {job.out}/index.html")
    return 0 if made == len(table) else 1


if __name__ == "__main__":
    sys.exit(main())
