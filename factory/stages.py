"""The stages of the line as actor classes, in order. Heavy packages are imported inside the actors only."""

from __future__ import annotations

import socket
from typing import Any

import numpy as np
import pyarrow as pa

from factory.config import FactoryConfig
from factory.ledger import commit_block
from factory.masker import Masker
from factory.pictures import cut_out, frame_object, read_picture
from factory.schema import DEAD_LETTERS, OUTCOME, pack, unpack
from factory.stage import Row, Stage, dead_letter, fail


class TextToImage(Stage):
    """Prompt to reference image; a row that brings its own image has it read and cut out instead."""

    name = "image"

    def load(self) -> None:
        from model.image import load_image_model

        self.model = load_image_model(self.config.image)
        self.masker = Masker(self.config.views.masks)

    def process(self, rows: list[Row]) -> None:
        for row in rows:
            row["from_image"] = row["source_image"] is not None
            if row["from_image"]:
                row["image"] = pack(self._given(row["source_image"]))
        wanted = [row for row in rows if not row["from_image"]]
        if not wanted:
            return
        images = self.model.generate([row["prompt"] for row in wanted], [row["seed"] for row in wanted])
        for row, image in zip(wanted, images, strict=True):
            row["image"] = pack(image)
            row.update(image_revision=self.model.revision, image_license=self.model.license)
            row.update({f"{kind}_image": count for kind, count in self.model.num_evaluations.items()})

    def _given(self, data: bytes) -> np.ndarray:
        """A user's picture as uint8 [S,S,4] over white, framed as the video model knows it.

        What is opaque all over is cut out by the masker, at twice the wanted size.
        """
        size = self.config.image.size
        picture = read_picture(data, size and 2 * size)
        if picture.shape[-1] == 3:
            picture = cut_out(picture, self.masker(picture[None])[0])
        return frame_object(picture, size or picture.shape[0])


class ImageToVideo(Stage):
    """Reference image and prompt to the frames of a turntable."""

    name = "video"

    def load(self) -> None:
        from model.video import load_video_model

        self.model = load_video_model(self.config.video)

    def process(self, rows: list[Row]) -> None:
        images = [unpack(row["image"]) for row in rows]
        for shape in {image.shape for image in images}:
            alike = [i for i, image in enumerate(images) if image.shape == shape]
            videos = self.model.generate(
                np.stack([images[i] for i in alike]),
                [rows[i]["prompt"] for i in alike],
                [rows[i]["seed"] for i in alike],
            )
            for i, frames in zip(alike, videos, strict=True):
                rows[i]["frames"] = pack(frames)
                rows[i].update(video_revision=self.model.revision, video_license=self.model.license)
                rows[i].update({f"{kind}_video": count for kind, count in self.model.num_evaluations.items()})


class FindViews(Stage):
    """Masks and elevation of the generated frames."""

    name = "views"

    def load(self) -> None:
        from factory.view_finder import ViewFinder

        self.finder = ViewFinder(self.config.views, self.config.orbit)

    def process(self, rows: list[Row]) -> None:
        for row in rows:
            masks, row["elevation"] = self.finder.find(unpack(row["frames"]))
            row["masks"] = pack(masks)


class Score(Stage):
    """Gaussians to a re-rendered turntable and CLIP scores of the frames and of the re-renders."""

    name = "score"

    def load(self) -> None:
        from eval.clip import Scorer

        self.scorer = Scorer.load(self.config.clip)

    def process(self, rows: list[Row]) -> None:
        from factory.export import render_turn

        for row in rows:
            renders = render_turn(row["gaussians"], row["elevation"], unpack(row["frames"]).shape[1], self.config)
            row["renders"] = pack(renders)
            row["scores"] = list(self._scores(row, renders).items())

    def _scores(self, row: Row, renders: np.ndarray) -> dict[str, float]:
        """100 times the mean cosine, by column name: what was judged, against what, by which CLIP."""
        image = unpack(row["image"])[..., :3]
        views = renders[:: max(1, len(renders) // self.config.orbit.num_views), ..., :3]
        sets = {"frames": unpack(row["frames"])[..., :3], "renders": views}
        scores = {}
        for what, pictures in sets.items():
            pictures = list(pictures)
            text = self.scorer.text_similarity(pictures, [row["prompt"]] * len(pictures)) if row["prompt"] else np.nan
            scores[f"clip_text_{what}_{self.scorer.name}"] = float(np.mean(text))
            scores[f"clip_image_{what}_{self.scorer.name}"] = float(
                np.mean(self.scorer.image_similarity(pictures, image))
            )
        return scores


class Commit(Stage):
    """The end of the line: files, then the one record of the rows at hand, as assets or as dead letters.

    Args:
        out: the output folder, local or s3://.
        run_id: which run this is.
    """

    name = "commit"

    def __init__(self, config: FactoryConfig, out: str, run_id: str, threads: int = 1, board: Any = None) -> None:
        from factory.store import open_store

        self.store, self.run_id = open_store(out, config.storage), run_id
        super().__init__(config, threads, board)

    def __call__(self, table: pa.Table) -> pa.Table:
        rows = table.to_pylist()
        blocks: dict[pa.Schema, list[Row]] = {}
        self._tell("end", [row for row in rows if row["error_stage"] is not None], 0.0)
        for group in self.groups([row for row in rows if row["error_stage"] is None]):
            for row in group:
                row |= {"run_id": self.run_id, "host": row["host"] or socket.gethostname()}
                self._write(row, blocks)
        dead = [row for row in rows if row["error_stage"] is not None]
        if dead:
            blocks[DEAD_LETTERS] = [dead_letter(row | {"run_id": self.run_id}, self.config) for row in dead]
        for schema, outcomes in blocks.items():
            commit_block(self.store, outcomes, schema)
        status = [(row["prompt_id"], "done" if row["error_stage"] is None else "failed") for row in rows]
        return pa.Table.from_arrays([pa.array(column) for column in zip(*status)], schema=OUTCOME)

    def write(self, row: Row) -> tuple[Row, pa.Schema]:
        """Write the files of a finished row; returns its table row and schema."""
        from factory.export import write_asset

        return write_asset(self.store, row, self.config)

    def _write(self, row: Row, blocks: dict[pa.Schema, list[Row]]) -> None:
        try:
            outcome, schema = self.write(row)
            blocks.setdefault(schema, []).append(outcome)
        except OSError:
            raise  # the storage, not the row: the block is tried again
        except Exception as error:
            fail(row, self.name, error)
