"""Turntable renders to latents, once: `im3d encode --shards DIR --weights DIR --out DIR`.

`im3d finetune` takes the result in the place of the renders for the targets image, video and temporal.
Run it again and it goes on. Exit code: 0 when what can be read is encoded, 2 when nothing was or it could not begin.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

import tyro

from factory.line.settings import Pool
from factory.storage.store import StorageConfig
from jobs.settings import guarded, settle


@dataclass(kw_only=True, slots=True)
class Encode:
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
    storage: StorageConfig = field(default_factory=StorageConfig)

    def __post_init__(self) -> None:
        if self.variants < 1:
            raise ValueError(f"variants is {self.variants}; it must be at least 1")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, encode; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: run(tyro.cli(Encode, args=arguments, prog="im3d encode")))


def run(job: Encode) -> int:
    """Encode all shards; returns the exit code."""
    from factory.ledger.lease import Lease
    from factory.storage.store import open_store
    from factory.training.encode import EncodeGroup, Encoding, drop_strangers, fingerprint, ledger_of
    from factory.training.shards.index import choice_of, read_index
    from factory.training.shards.row_group_line import go_through, named_groups, results

    index = read_index(job.shards, None, job.storage)
    if index.encoder:
        raise ValueError(f"{job.shards} holds latents already; give the renders")
    weights = open_store(job.weights, job.storage)
    encoder = fingerprint(weights)
    if encoder is None:
        raise ValueError(f"{job.weights} has no autoencoder; train one with `im3d finetune --target autoencoder`")
    out = open_store(job.out, job.storage)
    if out.root == index.url:
        raise ValueError(f"{job.out} is the folder of the renders; give another --out")
    with Lease(out) as lease:
        out.sweep()
        curated = choice_of(open_store(index.url, job.storage))
        made_of = {"encoder": encoder, "shards": index.url, "curated": curated}
        settle(out, made_of | {"variants": job.variants, "seed": job.seed, "shard": "a row group of the renders"})
        groups = named_groups(index)
        ledger = ledger_of(out, lease, groups)
        problems = index.quarantined | go_through(
            groups, EncodeGroup, job.pool, job.address, ledger, captions=index.captions, root=index.url,
            config=Encoding(weights=weights.root, variants=job.variants, seed=job.seed), storage=job.storage,
        )  # fmt: skip
        drop_strangers(ledger, groups)
        turntables = sum(row["turntables"] for row in results(ledger, groups, "turntables"))
    for place, reason in problems.items():
        print(f"not readable: {place}: {reason}")
    if not turntables:
        raise ValueError(f"no turntable of {job.shards} could be encoded; see the reasons above")
    print(f"{turntables} turntables, {job.variants} copies each: {out.root}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
