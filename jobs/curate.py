"""Choose the assets whose pictures agree with their captions: `im3d curate --shards DIR --best 700`.

Exit code: 0 when the decision is written, 2 when there was nothing to judge.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from eval.config import ClipConfig
from factory.training.curate.settings import CurateConfig
from jobs.base import LineJob, start
from model.captioner import CaptionerConfig
from recon.user_error import UserError


@dataclass(kw_only=True, slots=True)
class Curate(LineJob):
    """Score every asset's pictures against its caption by CLIP and keep the best; `im3d finetune` heeds it.

    Run it again and it judges what is missing; another --best or --threshold judges nothing anew."""

    shards: str
    """Turntables as `im3d render` writes them, a local path or s3:// address; the decision is written there."""
    settings: Annotated[CurateConfig, tyro.conf.arg(name="")]
    captioner: CaptionerConfig = field(default_factory=CaptionerConfig)
    clip: ClipConfig = field(default_factory=ClipConfig)
    weights: str | None = None
    """Folder, local or s3://, that `im3d weights pull` filled: networks of its catalogue are taken from it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, judge, write; returns the exit code."""
    return start("curate", Curate, run, argv)


def run(job: Curate) -> int:
    """Judge all assets and write the decision; returns the exit code."""
    from factory.ledger.lease import Lease
    from factory.line.one_stage_line import line_config
    from factory.training.curate.choice import Curation, choose, write
    from factory.training.curate.page import shown, write_page
    from factory.training.shards.index import CURATED, folder_of, read_index
    from factory.weights.folder import resolved_judge

    store = folder_of(job.shards, job.storage)
    index = read_index(job.shards, None, job.storage, only_kept=False)
    if index.encoder:
        raise UserError(f"{job.shards} holds latents; curate the renders that they were made of")
    if not job.captioner.model and not any(index.captions.values()):
        raise UserError(f"{job.shards} has no captions to compare with; render from a table with a column 'caption', "
                        "or let --captioner.model write them")  # fmt: skip
    clip = resolved_judge(job.weights, job.clip)
    name, revision = _judge(clip)
    with Lease(store):
        line = line_config(job.settings.pool, job.settings.address, job.runner)
        curation = Curation(
            store=store, index=index, config=job.settings, storage=job.storage, line=line, prices=job.cost
        )
        if job.captioner.model:
            captioner, captioner_revision = _captioner(job.captioner)
            made = curation.caption(job.captioner, captioner_revision)
            print(f"{made} of {len(index.captions)} assets captioned by {captioner}")
        verdicts = curation.judge(clip, revision)
        for place, reason in (index.quarantined | curation.problems).items():
            print(f"not readable: {place}: {reason}")
        choose(verdicts, job.settings)
        write(store, verdicts, name)
        looked_at = {verdict.asset_id for part in shown(verdicts) for verdict in part}
        write_page(store, verdicts, curation.pictures(looked_at, revision), name)
    training = [verdict.kept for verdict in verdicts if verdict.split == "train"]
    print(
        f"{sum(training)} of {len(training)} training assets kept by {name}, and all "
        f"{len(verdicts) - len(training)} for validation: {store.root}/{CURATED}, {store.root}/curated.html"
    )
    return 0


def _judge(config: ClipConfig) -> tuple[str, str]:
    """Name and revision of a judge; it is loaded for them, and dropped."""
    from eval.clip import Scorer
    from factory.weights.folder import local_judge

    scorer = Scorer.load(local_judge(config))
    return scorer.name, scorer.revision


def _captioner(config: CaptionerConfig) -> tuple[str, str]:
    """The same of a captioner."""
    from model.captioner import Captioner

    captioner = Captioner(config)
    return captioner.name, captioner.revision


if __name__ == "__main__":
    sys.exit(main())
