"""The stage that judges: an asset's video and model in, its row of scores out."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.similarity import Protocol, score_asset
from factory.evaluation.line import SCORE_DEAD_LETTERS, Measures, scores_schema
from factory.evaluation.viewable_asset import Shape, Turn, over_grey, read_shape
from factory.line.one_stage_line import Finish
from factory.line.settings import Pool
from factory.line.stage import Row
from factory.line.step import Step
from factory.prompts.assets import beside, read_asset
from factory.storage.interface import StorageConfig
from factory.storage.read_only import open_read_only
from recon.config import OrbitConfig


def step(pool: Pool, **arguments: Any) -> Step:
    """The line's one stage; `arguments` are those of `Evaluate` beside threads and board."""
    return Step(actor=Evaluate, pool=pool, arguments=arguments)


class Evaluate(Finish):
    """Videos and models to scores, committed as a row of scores or as a dead letter.

    Args:
        config: the protocol. measures: what is measured beside CLIP.
        clip: models as `Scorer.load` takes them. prompts: by model name, unit text embeddings by prompt.
        root: folder with the assets. out: folder of this evaluation. truth_root: folder of the real objects.
        run_id: which run this is.
    """

    name, dead_letters = "evaluate", SCORE_DEAD_LETTERS

    def __init__(
        self,
        config: Protocol,
        measures: Measures,
        clip: Sequence[Any],
        prompts: dict[str, dict[str, np.ndarray]],
        root: str,
        out: str,
        run_id: str,
        storage: StorageConfig,
        truth_root: str = "",
        threads: int = 1,
        board: Any = None,
    ) -> None:
        self.clip, self.prompts, self.measures = clip, prompts, measures
        self.assets, self.truth_root = open_read_only(root, storage), truth_root
        super().__init__(config, out, run_id, threads, board, storage)

    def load(self) -> None:
        from eval.clip import Scorer

        self.scorers = [Scorer.load(model, self.device()) for model in self.clip]
        self.schema = scores_schema([scorer.name for scorer in self.scorers], self.measures)
        if self.measures.columns():
            from recon.perceptual import load_perceptual

            self.network = load_perceptual("pocket")
        if self.measures.consistency:
            from factory.evaluation.consistency import ConsistencyJudge

            self.judge = ConsistencyJudge(self.network)

    def make(self, row: Row) -> Row:
        """Every score of one asset; ValueError for an asset that cannot be judged by this protocol."""
        if row["error"]:
            raise ValueError(f"asset {row['prompt_id']!r}: {row['error']}")
        if not row["prompt"]:
            raise ValueError(f"asset {row['prompt_id']!r} has no prompt; add it to the table of prompts")
        frames, shape, turn = self.frames(row), self.shape(row), self.turn(row)
        if frames is None and shape is None:
            raise ValueError(f"prompt {row['prompt_id']!r} has neither video nor model; see its name in the folder")
        renders = None if shape is None else shape.pictures(turn)
        seen = {} if frames is None else {"frames": frames}
        if renders is not None:
            seen["renders"] = over_grey(renders, self.config.background)
        image = self.reference(row)
        found: Row = {}
        for scorer in self.scorers:
            found |= score_asset(scorer, seen, row["prompt"], image, self.prompts[scorer.name])
        if shape is not None and row["truth_path"]:
            found |= self.fidelity(row, shape, turn)
        if self.measures.consistency and frames is not None:
            found |= self.judge.measure(frames, turn, shape, row["yield_score"])
        return found

    def turn(self, row: Row) -> Turn:
        """The cameras of the asset's own turntable."""
        config = self.config
        orbit = OrbitConfig(num_views=config.num_views, fov_degrees=config.fov_degrees, distance=config.distance)
        elevation = config.elevation if row["elevation"] is None else row["elevation"]
        return Turn(elevation=elevation, size=config.size, orbit=orbit)

    def frames(self, row: Row) -> NDArray[np.uint8] | None:
        """The synthesised views uint8 [V,S,S,3]; ValueError when the video is of another length or size."""
        from recon.video_io import decode_mp4

        if not row["frames_path"]:
            return None
        frames, config = decode_mp4(self.read(row["frames_path"])), self.config
        if len(frames) != config.num_views or frames.shape[1:3] != (config.size, config.size):
            raise ValueError(
                f"{row['frames_path']} has {len(frames)} frames of {frames.shape[2]}x{frames.shape[1]}; the protocol "
                f"says {config.num_views} of {config.size}x{config.size}: see --num-views and --size"
            )
        return frames

    def shape(self, row: Row) -> Shape | None:
        """The model, or None where there is only a video."""
        path = row["model_path"]
        if not path:
            return None
        config = self.config
        opener = beside(path, self.read)
        return read_shape(self.read(path), path, up=config.up, normalise=config.normalise, opener=opener)

    def reference(self, row: Row) -> NDArray[np.uint8] | None:
        """The image prompt uint8 [H,W,3] over the protocol's background, or None."""
        from PIL import Image

        data = self.read(row["image_path"]) if row["image_path"] else row["image"]
        if not data:
            return None
        pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))
        alpha = pixels[..., 3:].astype(np.float32) / 255
        grey = 255 * self.config.background
        return (pixels[..., :3] * alpha + grey * (1 - alpha)).round().astype(np.uint8)

    def fidelity(self, row: Row, shape: Shape, turn: Turn) -> Row:
        """The asset against the real object."""
        from factory.evaluation.fidelity import compare

        path, read = row["truth_path"], lambda name: read_asset(name, self.truth_root, self.storage)
        truth = read_shape(read(path), path, fine=True, opener=beside(path, read))
        return dict(compare(shape, truth, turn, self.network))

    def read(self, path: str) -> bytes:
        """The bytes of a file of the assets; ValueError when it is not there."""
        try:
            return self.assets.get(path)
        except KeyError as error:
            raise ValueError(f"{path} is missing from {self.assets.root}") from error
