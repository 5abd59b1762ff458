"""The line, on Ray Data:

    prompts ── TextToImage ── ImageToVideo ── FindViews ── Reconstruct ── Score ── Commit ──▶ one record a prompt
               image          frames          masks,       Gaussians,     re-render,  files, then an asset row
                                              elevation    fit and        CLIP        or a dead letter
                                                           re-denoise

`steps` is this chain; `factory.line.run` drives prompts through it until each has exactly one record in the ledger.
"""

from __future__ import annotations

from typing import Any

from factory.config.settings import FactoryConfig
from factory.line.object_store import row_bytes
from factory.line.step import Step
from factory.stages.commit import Commit
from factory.stages.find_views import FindViews
from factory.stages.image_to_video import ImageToVideo
from factory.stages.reconstruct import Reconstruct
from factory.stages.score import Score
from factory.stages.text_to_image import TextToImage


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
