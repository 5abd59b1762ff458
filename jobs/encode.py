"""Turntable renders to latents, once: `im3d encode --shards DIR --weights DIR --out DIR`.

`im3d finetune` takes the result in the place of the renders for the targets image, video and temporal.
Run it again and it goes on. Exit code: 0 when all shards are written, 2 when it could not begin.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from factory.store import StorageConfig
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
    workers: int = 1
    """Processes."""
    threads: int = 1
    """CPU threads of each."""
    storage: StorageConfig = field(default_factory=StorageConfig)

    def __post_init__(self) -> None:
        if min(self.variants, self.workers, self.threads) < 1:
            raise ValueError("variants, workers and threads must be at least 1")


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, encode; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return guarded(lambda: run(tyro.cli(Encode, args=arguments, prog="im3d encode")))


def run(job: Encode) -> int:
    """Encode all shards; returns the exit code."""
    from factory.keys import digest
    from factory.latents import Encoding, encode_all, fingerprint
    from factory.lease import Lease
    from factory.shards import decisions, read_index
    from factory.store import open_store
    from factory.training_run import fetch

    index = read_index(job.shards, None, job.storage)
    if index.encoder:
        raise ValueError(f"{job.shards} holds latents already; give the renders")
    encoder = fingerprint(open_store(job.weights, job.storage))
    if encoder is None:
        raise ValueError(f"{job.weights} has no autoencoder; train one with `im3d finetune --target autoencoder`")
    out = open_store(job.out, job.storage)
    if out.root == index.url:
        raise ValueError(f"{job.out} is the folder of the renders; give another --out")
    with Lease(out), tempfile.TemporaryDirectory(prefix="im3d-encode-") as scratch:
        chosen = decisions(open_store(index.url, job.storage))
        made_of = {"encoder": encoder, "shards": index.url, "curated": digest(repr(sorted(chosen.items())))}
        settle(out, made_of | {"variants": job.variants, "seed": job.seed})
        encoding = Encoding(
            url=index.url, out=out.root, captions=index.captions, variants=job.variants, seed=job.seed,
            threads=job.threads, storage=job.storage,
            weights=fetch(job.weights, ["autoencoder"], Path(scratch), job.storage),
        )  # fmt: skip
        problems = index.quarantined | encode_all(encoding, index, job.workers)
    for shard, reason in problems.items():
        print(f"not readable: {shard}: {reason}")
    print(f"{len(index)} turntables, {job.variants} copies each: {out.root}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
