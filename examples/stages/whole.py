"""A filter of one's own: `Whole` drops reference images whose object is cut off by an edge, or hardly there.

    im3d generate --prompts prompts.txt --out out \
        --chain image,examples.stages.whole:Whole,video,views,reconstruct,score,commit
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from factory.ledger.schemas import unpack
from factory.line.rows import Row
from factory.line.stage import Stage
from factory.stages.columns import IMAGE

LEAST_SHARE = 0.03
"""Of the picture, that the object must cover."""
MOST_CUT = 0.05
"""Of the pixels along the edges, that the object may cover: a turntable of it would invent what is outside."""


class Whole(Stage):
    """Row by row: the share of the picture that the object covers as a column, or a dead letter that says why."""

    name = "whole"
    reads = (IMAGE,)
    writes = (pa.field("object_share", pa.float64(), metadata={"holds": "of the reference image, in [0, 1]"}),)

    def process(self, rows: list[Row]) -> None:
        for row in rows:
            covered = coverage(unpack(row["image"]))
            share = row["object_share"] = float(covered.mean())
            cut = np.concatenate([covered[0], covered[-1], covered[:, 0], covered[:, -1]]).mean()
            if share < LEAST_SHARE:
                self.drop(row, f"the object covers {share:.1%} of the image; it must cover {LEAST_SHARE:.0%} at least")
            elif cut > MOST_CUT:
                self.drop(row, f"the object touches {cut:.0%} of the image's edges; {MOST_CUT:.0%} is the limit")


def coverage(image: np.ndarray) -> np.ndarray:
    """Where the object is, bool [H,W], in an image uint8 [H,W,3|4] over white."""
    return image[..., 3] > 127 if image.shape[-1] == 4 else np.any(image < 245, axis=-1)
