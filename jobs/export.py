"""Finished assets in, other formats out: `im3d export --run DIR --format spz --out DIR`.

Exit code: 0 when every asset is exported, 1 when some are dead letters, 2 when nothing could run.
"""

from __future__ import annotations

import dataclasses
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from factory.outputs.export_settings import CONVERTED, ExportConfig
from jobs.settings import guarded, settle

if TYPE_CHECKING:
    from factory.storage.store import Store


@dataclass(kw_only=True, slots=True)
class ExportJob:
    """Write assets in another format, below OUT/<format>. Run it again and it exports what is missing."""

    out: str
    """Output folder, a local path or s3:// address; made if missing."""
    settings: Annotated[ExportConfig, tyro.conf.arg(name="")]
    run: str | None = None
    """Output folder of `im3d generate`, local or s3://."""
    ply: tuple[str, ...] = ()
    """3D Gaussian splatting PLY files, local or s3://, instead of a run."""
    limit: int | None = None
    """Only the first assets, >= 1."""

    def __post_init__(self) -> None:
        if bool(self.run) == bool(self.ply):
            raise ValueError("give either --run with the folder of a run or --ply with PLY files")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit is {self.limit}; it must be at least 1")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, report; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: run(tyro.cli(ExportJob, args=arguments, prog="im3d export")))


def run(job: ExportJob) -> int:
    """Export what the output folder lacks; returns the exit code. Raises ValueError for the user."""
    from factory.ledger.finished_assets import assets_of_files, assets_of_run
    from factory.ledger.lease import Lease
    from factory.ledger.ledger import DEAD, Ledger
    from factory.outputs.export import gather_shards, results_of
    from factory.outputs.splat_transform import locate
    from factory.storage.store import open_store

    config = job.settings
    if config.format in CONVERTED:
        config = dataclasses.replace(config, splat_transform=locate(config.splat_transform))
    assets = (assets_of_run(job.run) if job.run else assets_of_files(job.ply))[: job.limit]
    store = open_store(f"{job.out.rstrip('/')}/{config.format}")
    with Lease(store) as lease:
        store.sweep()
        describe(store, config)
        ledger = Ledger(store, results_of(config), config.shard_assets, lease)
        ledger.revive({row["prompt_id"] for row in ledger.rows(DEAD, ["prompt_id"])})
        _export(assets, config, ledger)
        if config.format == "webdataset":
            gather_shards(store)
    return _report(assets, ledger)


def describe(store: Store, config: ExportConfig) -> None:
    """Write down the settings, and the card of a dataset; ValueError where the folder holds files of others."""
    from factory.outputs.training_formats import CARD

    settle(store, config.identity())
    if config.format == "hf":
        store.put("README.md", CARD.format(num_views=config.num_views, size=config.size).encode())


def _export(assets: list[dict[str, Any]], config: ExportConfig, ledger: Any) -> None:
    from factory.line.one_stage_line import line_config
    from factory.line.progress import Display
    from factory.line.run import run_line
    from factory.outputs.export import ExportWork, steps

    missing = sum(asset["prompt_id"] not in ledger for asset in assets)
    if not missing:
        ledger.publish()
        print(f"Nothing to do: all {len(assets)} assets are exported in {ledger.store.root}")
        return
    print(f"{missing} of {len(assets)} assets to export as {config.format}")
    chain = steps(config, ledger.store.root, uuid.uuid4().hex[:12])
    run_line(ExportWork(assets=assets), chain, line_config(config.pool, config.address), ledger, Display())


def _report(assets: list[dict[str, Any]], ledger: Any) -> int:
    """Name what failed, count what is there."""
    from factory.ledger.ledger import DEAD

    failed = list(ledger.rows(DEAD, ["prompt_id", "error_message"]))
    print("\n".join(f"  {row['prompt_id']}: {row['error_message']}" for row in failed[:20]), end="\n" * bool(failed))
    done = sum(asset["prompt_id"] in ledger and not ledger.is_dead(asset["prompt_id"]) for asset in assets)
    print(f"{done} of {len(assets)} assets exported, {len(assets) - done} are dead letters: {ledger.store.root}")
    return 0 if done == len(assets) else 1


if __name__ == "__main__":
    sys.exit(main())
