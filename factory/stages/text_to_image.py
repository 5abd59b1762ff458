"""Generate the reference image of a prompt, or take the row's own: the stage `TextToImage`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from factory.ledger.schemas import pack
from factory.line.network import Network
from factory.line.stage import Row, Stage
from factory.prompts.pictures import cut_out, frame_object, read_picture
from factory.stages import networks
from factory.stages.columns import IMAGE, SOURCE_IMAGE, side_of
from factory.stages.masker import Masker

if TYPE_CHECKING:
    from factory.config.settings import FactoryConfig


class TextToImage(Stage):
    """Prompt to reference image; a row that brings its own image has it read and cut out instead."""

    name, sections, calls, grows = "image", ("image", "views"), "image", True
    gpu_batch = 8
    uses = (SOURCE_IMAGE,)
    writes = (
        IMAGE,
        pa.field("from_image", pa.bool_()),  # the row brought its own
        pa.field("image_revision", pa.string()),
        pa.field("image_license", pa.string()),
    )

    @classmethod
    def added_bytes(cls, config: FactoryConfig) -> int:
        return 4 * side_of(config) ** 2

    @classmethod
    def expected_seconds(cls, config: FactoryConfig) -> float:
        return config.image.steps * (0.1 if config.image.model == "pocket" else 0.15)

    @classmethod
    def networks(cls, config: FactoryConfig) -> list[Network]:
        return [networks.generator("image", config.image), networks.masks(config.views.masks)]

    @classmethod
    def devices(cls, config: FactoryConfig) -> list[str]:
        return [config.image.device]

    def load(self) -> None:
        from model.image import load_image_model

        config = self.config.image
        self.model = load_image_model(replace(config, device=self.device(config.device)))
        self.masker = Masker(self.config.views.masks, self.device(), self.pool.threads)

    def process(self, rows: list[Row]) -> None:
        """Frame the pictures that rows bring, and generate those of all other rows together."""
        for row in rows:
            row["from_image"] = row["source_image"] is not None
            if row["from_image"]:
                row["image"] = pack(self._given(bytes(row["source_image"])))
                row.update(image_revision=None, image_license=None, steps_image=None, forwards_image=None)
        wanted = [row for row in rows if not row["from_image"]]
        if not wanted:
            return
        images = self.model.generate([row["prompt"] for row in wanted], [row["seed"] for row in wanted])
        for row, image in zip(wanted, images, strict=True):
            row["image"] = pack(self._on_white(image))
            row.update(image_revision=self.model.revision, image_license=self.model.license)
            row.update({f"{kind}_image": count for kind, count in self.model.num_evaluations.items()})

    def _given(self, data: bytes) -> np.ndarray:
        """A user's picture as uint8 [S,S,4] over white, framed as the video model knows it.

        What is opaque all over is cut out by the masker, at twice the wanted size.
        """
        size = self.model.size
        return frame_object(self._cut_out(read_picture(data, 2 * size)), size)

    def _on_white(self, image: np.ndarray) -> np.ndarray:
        """A generated picture uint8 [S,S,3|4]; an opaque one is cut out, put on white and framed as a user's is."""
        return image if image.shape[-1] == 4 else frame_object(self._cut_out(image), image.shape[0])

    def _cut_out(self, picture: np.ndarray) -> np.ndarray:
        """The picture uint8 [S,S,4] over white; an opaque one without its ground."""
        return picture if picture.shape[-1] == 4 else cut_out(picture, self.masker(picture[None])[0])
