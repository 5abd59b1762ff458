"""Train a model on turntables with Ray Train: `im3d finetune --target temporal --shards DIR --weights DIR`.

Targets, in the order in which they build on each other: autoencoder, text, image, video, temporal; on their own:
elevation, elevation-dino, mask, clip. A run that was cut goes on from its last checkpoint.
Exit code: 0 when the weights are written, 2 when training could not begin or had to stop.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from factory.training.finetune.settings import WorkersConfig
from factory.training.finetune.targets import target_of
from jobs.base import Job, start
from jobs.help import parse_flags
from model.config import TrainConfig


@dataclass(kw_only=True, slots=True)
class Finetune(Job):
    """Train one of the models on rendered turntables. Run it again and it goes on."""

    target: str
    """Which model: autoencoder, text, image, video, temporal, elevation, elevation-dino, mask, clip, i2vgen-xl, svd,
    sv3d or wan-lora. Each has training settings of its own: see --help --target X."""
    shards: str
    """Turntables as `im3d render` writes them, a local path or s3:// address."""
    weights: str
    """Folder of weight folders, a local path or s3:// address; what the target builds on is read from it, the
    result is written to it."""
    out: str | None = None
    """Checkpoints, log, TensorBoard and sheets, a local path or s3:// address; runs/finetune/TARGET by default."""
    split: str | None = "train"
    """Turntables of this split only; `None` takes all."""
    train: TrainConfig = field(default_factory=TrainConfig)
    workers: Annotated[WorkersConfig, tyro.conf.arg(name="")] = field(default_factory=WorkersConfig)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, train; returns the exit code."""
    return start("finetune", Finetune, run, argv, parse)


def parse(arguments: Sequence[str]) -> Finetune:
    """The flags over the target's own training settings, which `--help --target X` shows.

    Raises:
        UserError: for an unknown target, or values that are refused.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--target", default=None, nargs="?")
    named = first.parse_known_args(arguments)[0].target
    if named is None:
        return parse_flags(Finetune, arguments, "im3d finetune")
    default = Finetune(target=named, shards=tyro.MISSING, weights=tyro.MISSING, train=target_of(named).train)
    return parse_flags(Finetune, arguments, "im3d finetune", default)


def run(job: Finetune) -> int:
    """Check everything, train, write the weights; returns the exit code."""
    from factory.training.finetune.driver import train
    from factory.training.finetune.prepare import prepare

    return train(prepare(job.target, job.shards, job.weights, job.out or f"runs/finetune/{job.target}", job.split,
                         job.train, job.workers, job.storage))  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
