"""Encode turntable renders as latents, once: `im3d encode --shards DIR --weights DIR --out DIR`.

`im3d finetune` takes the result in the place of the renders for the targets image, video and temporal.
Run it again and it goes on. Exit code: 0 when what can be read is encoded, 2 when nothing was or it could not begin.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from factory.line.placement import Pool
from jobs.base import LineJob, start
from recon.user_error import UserError


@dataclass(kw_only=True, slots=True)
class Encode(LineJob):
    """Encode rendered turntables by the pocket autoencoder, for training that need not do it again in every step."""

    shards: str
    """Turntables as `im3d render` writes them, a local path or s3:// address."""
    weights: str
    """Folder of weight folders with `autoencoder`, a local path or s3:// address."""
    out: str
    """Shards of latents, a local path or s3:// address."""
    variants: int = 4
    """Copies of each turntable, each with its own hue, mirror and caption: what is drawn anew from pictures in every
    step is drawn this often here."""
    seed: int = 0
    pool: Pool = field(default_factory=Pool)
    """The encoding actors; each row is a row group of a shard."""
    address: str = "local"
    """'local' starts Ray on this machine; 'auto' or a ray:// address joins a cluster."""

    def __post_init__(self) -> None:
        if self.variants < 1:
            raise UserError(f"variants is {self.variants}; it must be at least 1")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, encode; returns the exit code."""
    return start("encode", Encode, run, argv)


def run(job: Encode) -> int:
    """Encode all shards; returns the exit code."""
    from factory.line.one_stage_line import line_config
    from factory.line.output_folder import open_output
    from factory.storage.read_only import open_read_only
    from factory.training.encode import (
        ENCODINGS,
        EncodeGroup,
        Encoding,
        drop_unlisted,
        fingerprint,
        requeue_missing_shards,
    )
    from factory.training.shards.index import choice_of, read_index
    from factory.training.shards.row_group_line import ROWS_PER_PART, named_groups, results, run_groups

    index = read_index(job.shards, None, job.storage)
    if index.encoder:
        raise UserError(f"{job.shards} holds latents already; give the renders")
    weights = open_read_only(job.weights, job.storage)
    encoder = fingerprint(weights)
    if encoder is None:
        raise UserError(f"{job.weights} has no autoencoder; train one with `im3d finetune --target autoencoder`")
    if open_read_only(job.out, job.storage).root == index.url:
        raise UserError(f"{job.out} is the folder of the renders; give another --out")
    curated, groups = choice_of(open_read_only(index.url, job.storage)), named_groups(index)
    made_of = {"encoder": encoder, "shards": index.url, "curated": curated}
    made_of |= {"variants": job.variants, "seed": job.seed, "shard": "a row group of the renders"}
    line = line_config(job.pool, job.address, job.runner)
    with open_output(job.out, job.storage, ENCODINGS, ROWS_PER_PART, made_of) as folder:
        requeue_missing_shards(folder, groups)
        problems = index.quarantined | run_groups(
            groups, EncodeGroup, line, job.pool, folder, job.cost, captions=index.captions, root=index.url,
            config=Encoding(weights=weights.root, variants=job.variants, seed=job.seed), storage=job.storage,
        )  # fmt: skip
        drop_unlisted(folder.ledger, groups)
        turntables = sum(row["turntables"] for row in results(folder.ledger, groups, "turntables"))
    for place, reason in problems.items():
        print(f"not readable: {place}: {reason}")
    if not turntables:
        raise UserError(f"no turntable of {job.shards} could be encoded; see the reasons above")
    print(f"{turntables} turntables, {job.variants} copies each: {folder.store.root}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
