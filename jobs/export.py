"""Export finished assets to other formats: `im3d export --run DIR --format spz --out DIR`.

Exit code: 0 when every asset is exported, 1 when some are dead letters, 2 when nothing could run.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from factory.outputs.export_settings import BY_SPLAT_TRANSFORM, ExportConfig
from jobs.base import LineJob, start
from recon.user_error import UserError

if TYPE_CHECKING:
    from factory.storage.interface import Store


@dataclass(kw_only=True, slots=True)
class ExportJob(LineJob):
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
            raise UserError("give either --run with the folder of a run or --ply with PLY files")
        if self.limit is not None and self.limit < 1:
            raise UserError(f"limit is {self.limit}; it must be at least 1")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, run, report; returns the exit code."""
    return start("export", ExportJob, run, argv)


def run(job: ExportJob) -> int:
    """Export what the output folder lacks; returns the exit code. Raises UserError for the user."""
    from factory.ledger.finished_assets import assets_of_files, assets_of_run
    from factory.line.one_stage_line import line_config
    from factory.line.output_folder import open_output
    from factory.outputs.export import ExportWork, gather_shards, results_of, steps
    from factory.storage.read_only import open_read_only

    config, identity = prepared(job.settings)
    assets = assets_of_run(open_read_only(job.run, job.storage)) if job.run else assets_of_files(job.ply)
    assets, place = assets[: job.limit], f"{job.out.rstrip('/')}/{config.format}"
    with open_output(place, job.storage, results_of(config), config.shard_assets, identity) as folder:
        if config.format == "hf":
            write_card(folder.store, config)
        folder.ledger.requeue()
        chain = steps(config, folder.store.root, folder.run_id, job.storage)
        line = line_config(config.pool, config.address, job.runner)
        folder.run(ExportWork(assets=assets), chain, line, job.cost, "assets", f"export as {config.format}")
        if config.format == "webdataset":
            gather_shards(folder.store)
        return _report(assets, folder.ledger)


def prepared(config: ExportConfig) -> tuple[ExportConfig, dict[str, Any]]:
    """The settings with what they need found, and what the files depend on; UserError where something is missing."""
    from factory.outputs.glb import require_meshoptimizer
    from factory.outputs.splat_transform import locate
    from factory.outputs.usd import require_usd

    if config.format in ("usd", "usdz"):
        require_usd()
    if config.format == "glb" and config.lods:
        require_meshoptimizer()
    if config.format not in BY_SPLAT_TRANSFORM:
        return config, config.identity()
    program = locate(config.splat_transform)
    identity = config.identity() | {"splat_transform": program.version}
    return dataclasses.replace(config, splat_transform=program.path), identity


def write_card(store: Store, config: ExportConfig) -> None:
    """Write the card of a dataset in the form of Hugging Face."""
    from factory.outputs.training_formats import CARD

    store.put("README.md", CARD.format(num_views=config.num_views, size=config.size).encode())


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
