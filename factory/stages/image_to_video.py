"""Generate the frames of a turntable from image and prompt (3.1): the stage `ImageToVideo`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from factory.ledger.schemas import pack, unpack
from factory.line.network import Network
from factory.line.stage import Row, Stage
from factory.stages import networks
from factory.stages.columns import FRAMES, IMAGE, VIEW_PLAN, pixels_of_frames
from factory.stages.view_plans import as_column

if TYPE_CHECKING:
    from factory.config.settings import FactoryConfig


class ImageToVideo(Stage):
    """Reference image and prompt to the frames of a turntable."""

    name, sections, calls, grows = "video", ("video",), "video", True
    gpu_batch = 4
    reads = (IMAGE,)
    writes = (FRAMES, VIEW_PLAN, pa.field("video_revision", pa.string()), pa.field("video_license", pa.string()))

    @classmethod
    def added_bytes(cls, config: FactoryConfig) -> int:
        return 4 * pixels_of_frames(config)

    @classmethod
    def expected_seconds(cls, config: FactoryConfig) -> float:
        return networks.seconds_a_step(config.video) * config.video.steps

    @classmethod
    def networks(cls, config: FactoryConfig) -> list[Network]:
        return [networks.turntable(config), *networks.loras(config.video)]

    @classmethod
    def devices(cls, config: FactoryConfig) -> list[str]:
        return [config.video.device]

    def load(self) -> None:
        from model.video import load_video_model

        config = self.config.video
        self.model = load_video_model(replace(config, device=self.device(config.device)))

    def process(self, rows: list[Row]) -> None:
        """Generate frames of rows whose images have one shape together."""
        images = [unpack(row["image"]) for row in rows]
        for shape in {image.shape for image in images}:
            alike = [i for i, image in enumerate(images) if image.shape == shape]
            videos = self.model.generate(
                np.stack([images[i] for i in alike]),
                [rows[i]["prompt"] for i in alike],
                [rows[i]["seed"] for i in alike],
            )
            for i, frames in zip(alike, videos, strict=True):
                rows[i]["frames"], rows[i]["view_plan"] = pack(frames), as_column(self.model.views)
                rows[i].update(video_revision=self.model.revision, video_license=self.model.license)
                rows[i].update({f"{kind}_video": count for kind, count in self.model.num_evaluations.items()})
