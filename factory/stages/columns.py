"""Name the Arrow columns that stages hand to each other, in `Stage.reads`, `uses` and `writes`: `IMAGE`, `FRAMES`, …

Arrays are .npy bytes (`factory.ledger.schemas.pack`), uint8; V views, T frames of a turn, H, W and S pixels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

OWN_SIDE = {"pocket": 128}
"""Pixels a side of models whose size is not set; 1024 for those that are not named."""


def _field(name: str, kind: pa.DataType, what: str) -> pa.Field:
    return pa.field(name, kind, metadata={"holds": what})


SOURCE_IMAGE = _field("source_image", pa.large_binary(), "the picture that the row brought, encoded as it came")
IMAGE = _field("image", pa.large_binary(), "reference image [H,W,3|4], over white; A is coverage")
FRAMES = _field("frames", pa.large_binary(), "generated turntable [V,S,S,3|4], on white")
VIEW_PLAN = _field(
    "view_plan",
    pa.struct(
        [
            ("azimuths", pa.list_(pa.float64())),
            *[(name, pa.float64()) for name in ("elevation", "fov_degrees", "distance")],
            ("size", pa.int32()),
            ("background", pa.string()),
            ("exact", pa.bool_()),
            ("fit", pa.list_(pa.int32())),
        ]
    ),
    "cameras of the frames as `model.views.ViewPlan`, angles in radians; as estimated where not exact",
)
MASKS = _field("masks", pa.large_binary(), "coverage of the frames [V,S,S]")
ELEVATION = _field("elevation", pa.float64(), "of the turntable's cameras, radians")
GAUSSIANS = _field("gaussians", pa.large_binary(), "3DGS PLY")
MESH = _field("mesh", pa.large_binary(), "GLB, where one is wanted")
NUM_GAUSSIANS = _field("num_gaussians", pa.int32(), "how many the PLY has")
USABLE = _field("usable", pa.float64(), "probability that the asset is of use, in [0, 1]; None where it was not judged")
REASONS = _field("quality_reasons", pa.list_(pa.string()), "what speaks most against the asset, in words")
MEASURES = _field("measures", pa.map_(pa.string(), pa.float64()), "of `recon.quality`, by the table's column")
SCORES = _field("scores", pa.map_(pa.string(), pa.float64()), "by the name of the published table's column")


def side_of(config: Any) -> int:
    """Pixels a side of the pictures, by the resolved settings."""
    return config.image.size or OWN_SIDE.get(config.image.model, 1024)


def pixels_of_frames(config: Any) -> int:
    """Pixels of all frames of a video, by the plan of the video model, or as many as there may be at most.

    A model that is no folder here is not fetched for its plan alone: on a cluster only the nodes need it.
    """
    from model.video_models import most_frames, view_plan

    if config.video.model == "pocket" or Path(config.video.model).expanduser().is_dir():
        plan = view_plan(config.video)
        return len(plan) * (plan.size or side_of(config)) ** 2
    return most_frames(config.video) * (config.video.size or side_of(config)) ** 2
