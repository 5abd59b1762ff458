"""Decide from a stage's pool where its models run: `device_for`, and `hide_gpus` for a process without a share."""

from __future__ import annotations

import os

from factory.line.placement import Pool
from recon.user_error import UserError


def device_for(wanted: str, pool: Pool, stage: str) -> str:
    """The device "cpu" or "cuda" that a setting means in a stage: "auto" is the GPU where the pool reserves one.

    Raises:
        ValueError: for CUDA in a stage that reserves no GPU; it would compute beside those that do.
    """
    if wanted == "cuda" and pool.gpus == 0:
        raise UserError(
            f"a model of stage {stage} is set to run on CUDA, but the stage's pool reserves no GPU (gpus 0): "
            "give it a share, as 0.5, or set the model's device to cpu or auto"
        )
    return ("cuda" if pool.gpus > 0 else "cpu") if wanted == "auto" else wanted


def hide_gpus(pool: Pool) -> None:
    """Make CUDA see no GPU in this process where its pool reserves none; call it before CUDA is asked for anything.

    Ray restricts a process to the GPUs that it reserves, but leaves one that reserves none all of them.
    """
    if pool.gpus == 0:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
