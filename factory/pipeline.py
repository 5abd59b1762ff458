"""The line, on Ray Data:

    prompts ── TextToImage ── ImageToVideo ── FindViews ── Reconstruct ── Score ── Commit ──▶ one record a prompt
               image          frames          masks,       Gaussians,     re-render,  files, then an asset row
                                              elevation    fit and        CLIP        or a dead letter
                                                           re-denoise

`steps` is this chain; `factory.line.run` drives prompts through it until each has exactly one record in the ledger.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any

from factory.config.settings import FactoryConfig
from factory.ledger.schemas import STAGES
from factory.line.settings import Pool
from factory.line.step import Step
from factory.stages.commit import Commit
from factory.stages.find_views import FindViews
from factory.stages.image_to_video import ImageToVideo
from factory.stages.reconstruct import Reconstruct
from factory.stages.score import Score
from factory.stages.text_to_image import TextToImage

OWN_SIDE = {"pocket": 128}
"""Pixels a side of models whose size is not set; 1024 for those that are not named."""
FACE_BYTES = 32


def steps(config: FactoryConfig, out: str, run_id: str) -> list[Step]:
    """The chain, in order."""
    common: dict[str, Any] = {"config": config}
    actors = [TextToImage, ImageToVideo, FindViews, Reconstruct, Score]
    sizes = row_bytes(config)
    chain = [
        Step(actor=actor, pool=getattr(config.line, actor.name), arguments=common, row_bytes=sizes[actor.name])
        for actor in actors
    ]
    end = common | {"out": out, "run_id": run_id}
    return [*chain, Step(actor=Commit, pool=config.line.commit, arguments=end)]


def pools_of(config: FactoryConfig) -> dict[str, Pool]:
    """The pool of each stage."""
    return {stage: getattr(config.line, stage) for stage in STAGES}


def row_bytes(config: FactoryConfig) -> dict[str, int]:
    """About how many bytes a row has when it leaves each stage, with as many Gaussians as there may be."""
    side = config.image.size or OWN_SIDE.get(config.image.model, 1024)
    floats = 14 + 3 * (config.fit.sh_degree + 1) ** 2
    added = {
        "image": 4 * side**2,
        "video": 4 * side**2 * config.orbit.num_views,
        "views": side**2 * config.orbit.num_views,
        "reconstruct": 4 * floats * config.fit.densify.max_gaussians
        + FACE_BYTES * config.mesh.faces * config.mesh.enabled,
        "score": 4 * side**2 * config.files.turntable_frames,
    }
    return dict(zip(added, accumulate(added.values()))) | {"commit": 0}
