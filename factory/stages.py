"""The stages of the line as actor classes, in order. Heavy packages are imported inside the actors only."""

from __future__ import annotations

import socket
from typing import Any

import numpy as np
import pyarrow as pa

from factory.config import FactoryConfig
from factory.ledger import commit_block
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
        from factory.dino import load_estimator

        self.masker = Masker(self.config.views.masks)
        self.estimator = load_estimator(self.config.views.estimator) if self.config.views.elevation is None else None

    def process(self, rows: list[Row]) -> None:
        from recon.masks import masks_of

        for row in rows:
            frames = unpack(row["frames"])
            row["masks"] = pack(masks_of(frames, self.masker))
            row["elevation"] = self.estimator.estimate(frames) if self.estimator else self.config.views.elevation


class Reconstruct(Stage):
    """Frames to Gaussians, with every round of re-denoising inside this one actor."""

    name = "reconstruct"

    def load(self) -> None:
        from model.video import load_video_model

        wanted = self.config.refine.within(self.config.fit.iterations) or self.config.yields.retries
        self.refiner = CountingRefiner(load_video_model(self.config.video)) if wanted else None
        self.masker = Masker(self.config.views.masks)
        if self.config.yields.enabled:
            from factory.dino import load_estimator
            from recon.yield_gate import load_yield_model

            self.judge, self.estimator = load_yield_model(), load_estimator(self.config.views.estimator)

    def _choose_turntable(self, row: Row) -> None:
        """Judge the row's turntable, and generate others while it is bad; the best one stays in the row."""
        from recon.masks import masks_of
        from recon.yield_gate import measure

        candidate = {name: row[name] for name in ("frames", "masks", "elevation")}
        for attempt in range(1, self.config.yields.retries + 2):
            features = measure(
                unpack(candidate["frames"]), unpack(candidate["masks"]), candidate["elevation"], self.config.orbit
            )
            score = self.judge.probability(features)
            if row["yield_score"] is None or score < row["yield_score"]:
                row.update(candidate, yield_score=score, yield_reasons=self.judge.reasons(features))
            if score <= self.config.yields.threshold or attempt > self.config.yields.retries:
                return
            model = self.refiner.model if self.refiner else None
            assert model is not None, "load() brings the model along wherever there are retries"
            seed = row["seed"] + 7919 * attempt
            frames = model.generate(unpack(row["image"])[None], [row["prompt"]], [seed])[0]
            for kind, count in model.num_evaluations.items():
                row[f"{kind}_video"] = (row[f"{kind}_video"] or 0) + count
            fixed = self.config.views.elevation
            elevation = self.estimator.estimate(frames) if fixed is None else fixed
            candidate = {
                "frames": pack(frames),
                "masks": pack(masks_of(frames, self.masker)),
                "elevation": elevation,
            }

    def process(self, rows: list[Row]) -> None:
        from factory.export import ply_bytes
        from recon.mesh import glb_bytes, mesh_of
        from recon.refine import LoopConfig, Turntable, reconstruct

        loop = LoopConfig(fit=self.config.fit, refine=self.config.refine, orbit=self.config.orbit)
        for row in rows:
            if self.refiner:
                self.refiner.reset()
            if self.config.yields.enabled:
                self._choose_turntable(row)
            given = Turntable(
                frames=unpack(row["frames"]),
                masks=unpack(row["masks"]),
                elevation=row["elevation"],
                image=unpack(row["image"]),
                prompt=row["prompt"],
            )
            gaussians, history = reconstruct(given, loop, self.refiner, self.masker, row["seed"])
            row["gaussians"] = ply_bytes(gaussians)
            row["num_gaussians"], row["elevation"] = len(gaussians), history[-1]["elevation"]
            row["mesh"] = glb_bytes(mesh_of(gaussians, self.config.mesh)) if self.config.mesh.enabled else None
            row["losses"] = [
                {"step": part["iteration"], "name": name, "value": float(value)}
                for part in history
                for name, value in part["losses"].items()
            ]
            row["device"] = str(gaussians.means.device)
            row.update(self.refiner.counts if self.refiner else {"steps_refine": 0, "forwards_refine": 0})


class CountingRefiner:
    """The video model as `recon.refine.Refiner`, one video at a time, adding up its network evaluations."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.reset()

    def reset(self) -> None:
        """Start counting a new asset."""
        self.counts = {"steps_refine": 0, "forwards_refine": 0}

    def refine(self, frames: np.ndarray, image: np.ndarray, prompt: str, seed: int) -> np.ndarray:
        """Frames uint8 [V,H,W,3|4] after noise and denoising, same shape."""
        refined = self.model.refine(frames[None], image[None], [prompt], [seed])[0]
        for kind, count in self.model.num_evaluations.items():
            self.counts[f"{kind}_refine"] += count
        return refined


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


class Masker:
    """The masker of `views.masks`, loaded when frames without alpha first come by.

    Args:
        name: "pocket" or "rembg".
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._masker: Any = None

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """Coverage uint8 [V,H,W] of frames uint8 [V,H,W,3]."""
        from recon.masks import PocketMasker, RembgMasker

        if self._masker is None:
            self._masker = RembgMasker() if self.name == "rembg" else PocketMasker.load()
        return self._masker(frames)
