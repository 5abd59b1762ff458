"""Prompts in, 3D assets out: `im3d generate --prompts FILE --out DIR`.

Exit code: 0 when every prompt of the table has its asset, 1 when some are dead letters or unfinished,
2 when the arguments, the table or the machine do not allow a run.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import tyro

from factory.config import FactoryConfig, Preset
from jobs import settings

if TYPE_CHECKING:
    from factory.ledger import Ledger
    from factory.prompts import PromptTable
    from factory.store import Store


@dataclass(kw_only=True, slots=True)
class Generate:
    """Make a 3D asset of every prompt of a table. Run it again, after a crash too, and it makes what is missing."""

    prompts: str
    """Table of prompts, a local path or s3:// address: .txt (a prompt a line), or .csv, .jsonl, .parquet with a
    column `prompt` and, if you like, `prompt_id`, `seed` and `image` (bytes or path: image to 3D)."""
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
    retry_dead_letters: bool = False
    """Run the table's dead letters again."""
    accept_changes: bool = False
    """Go on in a folder whose finished assets were made with other settings."""
    settings: Annotated[FactoryConfig, tyro.conf.arg(name="")] = field(default_factory=FactoryConfig)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, report; returns the exit code."""
    return settings.guarded(lambda: run(settings.parse(Generate, argv)))


def run(job: Generate) -> int:
    """Make what the output folder lacks; returns the exit code. Raises ValueError and RuntimeError for the user."""
    from factory.config import to_yaml
    from factory.lease import Lease
    from factory.ledger import Ledger
    from factory.prompts import read_prompts
    from factory.store import open_store

    table = read_prompts(job.prompts, job.limit, job.image_root, job.settings.storage)
    store = open_store(job.out, job.settings.storage)
    with Lease(store):
        store.sweep()
        ledger = Ledger(store)
        _guard_settings(job, store, ledger)
        if job.retry_dead_letters:
            ledger.revive({prompt.prompt_id for prompt in table.prompts})
        missing = [prompt for prompt in table.prompts if prompt.prompt_id not in ledger]
        if missing:
            from factory.pipeline import preflight

            preflight(job.settings)
        store.put("config.yaml", to_yaml(job.settings).encode())
        _bury_rejected(job, table, ledger)
        if missing:
            settled = len(table.prompts) - len(missing)
            print(f"{len(missing)} prompts to make, {settled} settled before, {len(table.rejected)} rows unusable")
            _make(job, table, ledger)
        else:
            ledger.publish()
            print(f"Nothing to do: all {len(table)} prompts of {job.prompts} are settled in {job.out}")
        return _report(job, table, store, ledger)


def _make(job: Generate, table: PromptTable, ledger: Ledger) -> None:
    from factory.pipeline import PromptWork, run_line, steps
    from factory.progress import Display

    chain = steps(job.settings, job.out, uuid.uuid4().hex[:12])
    work = PromptWork(prompts=table.prompts, config=job.settings)
    run_line(work, chain, job.settings.line, ledger, Display())


def _guard_settings(job: Generate, store: Store, ledger: Ledger) -> None:
    """Refuse to mix assets of different settings in a folder unless told to."""
    from factory.config import difference, from_yaml

    try:
        before = store.get("config.yaml").decode()
    except KeyError:
        before = None
    if before and ledger.done and not job.accept_changes:
        changes = difference(from_yaml(before, FactoryConfig(), f"{job.out}/config.yaml"), job.settings)
        if changes:
            raise ValueError(
                f"{job.out} holds {len(ledger.done)} assets made with other settings ({'; '.join(changes)}): "
                "give another --out, or --accept-changes"
            )


def _bury_rejected(job: Generate, table: PromptTable, ledger: Ledger) -> None:
    from factory.schema import empty_row
    from factory.stage import dead_letter

    rows = [
        empty_row(prompt_id=row.prompt_id, prompt=row.prompt, attempt=1)
        | {"error_stage": "prompts", "error_type": row.error_type, "error_message": row.error_message}
        for row in table.rejected
        if row.prompt_id not in ledger
    ]
    ledger.bury(dead_letter(row, job.settings) for row in rows)


def _report(job: Generate, table: PromptTable, store: Store, ledger: Ledger) -> int:
    from factory.gallery import write_gallery
    from factory.ledger import ASSETS, DEAD
    from factory.progress import SUMMARY_COLUMNS, dead_table, make_console, summary_table

    write_gallery(store, ledger, job.settings)
    ids = {prompt.prompt_id for prompt in table.prompts} | {row.prompt_id for row in table.rejected}
    made = [row for row in ledger.rows(ASSETS, SUMMARY_COLUMNS) if row["prompt_id"] in ids]
    dead = [row for row in ledger.rows(DEAD) if row["prompt_id"] in ids]
    console = make_console()
    if made:
        console.print(summary_table(made))
    if dead:
        console.print(dead_table(dead))
    print(f"{len(made)} of {len(ids)} prompts have an asset, {len(dead)} are dead letters: {job.out}/index.html")
    return 0 if len(made) == len(ids) else 1


if __name__ == "__main__":
    sys.exit(main())
