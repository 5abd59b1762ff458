"""Publish the assets of runs as one data set: `im3d dataset --runs A B --out DIR`.

Exit code: 0 when every chosen asset is in it or a near-duplicate, 1 when some could not be read, 2 when nothing could
run.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from factory.outputs.dataset.settings import DatasetConfig
from factory.outputs.export_settings import BY_SPLAT_TRANSFORM
from jobs.base import Job, start
from recon.user_error import UserError

if TYPE_CHECKING:
    import pyarrow as pa

    from factory.ledger.reader import LedgerReader
    from factory.storage.interface import Store


@dataclass(kw_only=True, slots=True)
class DatasetJob(Job):
    """Merge runs, choose, drop near-duplicates, split by prompt, write shards, card and Croissant. Run it again with
    more runs and it adds what is new."""

    runs: tuple[str, ...]
    """Output folders of `im3d generate`, local or s3://; they are only read and may still be going."""
    out: str
    """Folder of the data set, a local path or s3:// address; made if missing."""
    settings: Annotated[DatasetConfig, tyro.conf.arg(name="")] = dataclasses.field(default_factory=DatasetConfig)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, build, report; returns the exit code."""
    return start("dataset", DatasetJob, run, argv)


def run(job: DatasetJob) -> int:
    """Add to the data set what it lacks; returns the exit code. Raises UserError for the user."""
    from factory.ledger.lease import Lease
    from factory.line.output_folder import settle
    from factory.outputs.dataset.collect import collected, open_runs
    from factory.storage.read_only import open_read_only
    from factory.storage.store import open_store

    runs = open_runs(job.runs, [open_read_only(root, job.storage) for root in job.runs])
    config, identity = prepared(job.settings)
    everything = collected(runs)
    chosen = choose(everything, config)
    store = open_store(job.out, job.storage)
    refuse_other_folder(store)
    with Lease(store):
        store.sweep()
        settle(store, identity)
        return build(store, config, runs, chosen, job)


def prepared(config: DatasetConfig) -> tuple[DatasetConfig, dict[str, Any]]:
    """The settings with what they need found, and what the files depend on; UserError where something is missing."""
    from factory.outputs.splat_transform import locate
    from factory.outputs.usd import require_usd

    if "usdz" in config.formats:
        require_usd()
    if not set(config.formats) & set(BY_SPLAT_TRANSFORM):
        return config, config.identity()
    program = locate(config.splat_transform)
    identity = config.identity() | {"splat_transform": program.version}
    return dataclasses.replace(config, splat_transform=program.path), identity


def choose(everything: pa.Table, config: DatasetConfig) -> pa.Table:
    """The assets that the conditions let through; UserError where there is none."""
    from factory.outputs.dataset.choose import matching, of_licenses

    chosen = matching(everything, config.where) if config.where else everything
    if not len(chosen):
        raise UserError(f"--where {config.where!r} holds for none of {len(everything)} assets; widen it")
    allowed = of_licenses(chosen, config.licence_allow) if config.licence_allow else chosen
    if not len(allowed):
        there = ", ".join(sorted(set(chosen["license"].to_pylist())))
        raise UserError(f"--licence-allow {' '.join(config.licence_allow)} fits no asset; there are {there}")
    return allowed


def refuse_other_folder(store: Store) -> None:
    """Raise UserError for a folder that holds something else than a data set."""
    import json

    from factory.line.output_folder import IDENTITY

    try:
        kind = json.loads(store.get(IDENTITY)).get("kind")
    except KeyError:
        kind = None
    folders = ("assets", "files", "commits", "exports", "renders", "evaluations", "shards", "data")
    if kind != "dataset" and any(next(iter(store.keys(f"{name}/")), None) for name in folders):
        raise UserError(f"{store.root} holds something else than a data set; choose an empty --out")


def build(store: Store, config: DatasetConfig, runs: dict[str, LedgerReader], chosen: pa.Table, job: DatasetJob) -> int:
    """Add the chosen assets and describe the data set; returns the exit code."""
    from collections import Counter

    from factory.outputs.dataset.build import Builder
    from factory.outputs.dataset.collect import facts_of
    from factory.outputs.dataset.contact_sheet import Sheet
    from factory.outputs.dataset.embed import Embedder, captions_of
    from factory.outputs.dataset.index import Index
    from factory.outputs.dataset.publish import publish
    from factory.outputs.dataset.samples import Sampler

    index, sheet, embedder = Index(store), Sheet(store), Embedder(config.clip)
    index.sweep()
    sampler = Sampler(config, {label: reader.store.root for label, reader in runs.items()}, job.storage)
    builder = Builder(store, config, index, sampler, embedder, sheet, captions_of(config.captioner))
    known = len(chosen) - sum(name not in index.ids for name in chosen["asset_id"].to_pylist())
    outcome = builder.add(chosen)
    if index.number:
        counts = Counter(chosen["run"].to_pylist())
        facts = {label: facts_of(reader) | {"chosen": counts[label]} for label, reader in runs.items()}
        publish(store, config, index, sheet, facts, embedder.name, builder.written)
    for name, reason in list(outcome.unreadable.items())[:20]:
        print(f"  {name}: {reason}")
    print(
        f"{outcome.kept} assets added, {outcome.duplicates} near-duplicates left out, {known} were there already, "
        f"{len(outcome.unreadable)} cannot be read: {store.root}"
    )
    return 1 if outcome.unreadable else 0


if __name__ == "__main__":
    sys.exit(main())
