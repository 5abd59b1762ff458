"""Judge an asset's video and model: the stage `Evaluate`, whose result is a row of scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.protocols import Protocol, cameras_of
from eval.similarity import score_asset
from factory.evaluation.line import SCORE_DEAD_LETTERS, Measures, scores_schema
from factory.evaluation.viewable_asset import Placed, Shape, Turn, over_grey, read_shape
from factory.line.one_stage_line import SingleStage
from factory.line.placement import Pool
from factory.line.stage import Row
from factory.line.step import Step
from factory.prompts.assets import beside, read_asset
from factory.stages.view_plans import plan_of
from factory.storage.interface import StorageConfig
from factory.storage.read_only import open_read_only
from recon.config import OrbitConfig
from recon.pictures import on_grey, open_picture


def step(pool: Pool, **arguments: Any) -> Step:
    """The line's one stage; `arguments` are those of `Evaluate` beside threads and board."""
    return Step(actor=Evaluate, pool=pool, arguments=arguments)


class Evaluate(SingleStage):
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
        self.feature_models: list[Any] = []
        self.assets, self.truth_root = open_read_only(root, storage), truth_root
        super().__init__(config, out, run_id, threads, board, storage)

    def load(self) -> None:
        """Load the CLIP models, the judges, and what truth and consistency need; the columns follow from them."""
        from eval.clip import Scorer
        from factory.weights.folder import local_judge

        self.scorers = [Scorer.load(local_judge(model), self.device()) for model in self.clip]
        self.schema = scores_schema([scorer.name for scorer in self.scorers], self.measures)
        from eval.judges.load import load_judges

        self.judges = load_judges(self.measures.judges, self.device())
        if self.measures.features:
            from eval.judges.features import FeatureModel

            self.feature_models = [FeatureModel.load(path, self.device()) for path in self.measures.features]
        if self.measures.truth or self.measures.consistency:
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
            raise ValueError(f"prompt {row['prompt_id']!r} has {self.nothing()}; see its name in the folder")
        look = Placed(cameras=cameras_of(self.config, row["elevation"]))
        renders = None if shape is None else shape.pictures(look)
        seen = {} if frames is None else {"frames": frames}
        if renders is not None:
            seen["renders"] = over_grey(renders, self.config.background)
        found, pairs = self.clip_scores(row, seen), dict[str, Any]()
        if frames is not None and renders is not None:
            same = renders if turn.azimuths is None or shape is None else shape.pictures(turn)
            pairs["frames"] = (same[..., :3], frames)  # both over white
        if shape is not None and row["truth_path"]:
            figures, views, truth = self.fidelity(row, shape, turn)
            found, pairs["truth"] = found | figures, (views[..., :3], truth[..., :3])
        if self.measures.consistency and frames is not None:
            found |= self.judge.measure(frames, turn, shape, row["yield_score"])
        if shape is not None and self.config.name == "gpteval3d":
            self.write_views(row["prompt_id"], seen["renders"], shape.normals(look))
        return found | self.judged(row["prompt"], seen, pairs)

    def nothing(self) -> str:
        """What an asset lacks that cannot be judged."""
        return "neither video nor model" if self.config.videos else f"no model, and {self.config.name} judges no videos"

    def clip_scores(self, row: Row, seen: dict[str, NDArray[np.uint8]]) -> Row:
        """By each CLIP model the scores of the views, and whether it has read the prompt to its end."""
        found, image = dict[str, Any](), self.reference(row)
        for scorer in self.scorers:
            found |= score_asset(scorer, seen, row["prompt"], image, self.prompts[scorer.name], self.config)
            found[f"cut_{scorer.name}"] = scorer.cut([row["prompt"]])[0]
        return found

    def judged(self, prompt: str, seen: dict[str, NDArray[np.uint8]], pairs: dict[str, Any]) -> Row:
        """The columns of the judges beside CLIP, and features."""
        from eval.judges.judge import Subject
        from eval.judges.scores import scores_of

        found, subject = dict[str, Any](), Subject(prompt=prompt, seen=seen, pairs=pairs)
        for judge in self.judges:
            found |= scores_of(judge, [subject], self.config)[0]
        for model in self.feature_models:
            for what, views in seen.items():
                found[f"features_{what}_{model.name}"] = model.embed(list(views)).ravel().tolist()
        return found

    def write_views(self, prompt_id: str, rgb: NDArray[np.uint8], normals: NDArray[np.float32]) -> None:
        """The files that GPTEval3D's script reads, below `method/`."""
        from eval.gpteval3d import files_of

        for name, data in files_of(prompt_id, rgb, normals):
            self.store.put(f"method/{name}", data)

    def turn(self, row: Row) -> Turn:
        """The cameras of the asset's own turntable."""
        config, azimuths = self.config, None
        if row["view_plan"] and not (plan := plan_of(row, len(row["view_plan"]["azimuths"]), OrbitConfig())).even:
            azimuths = tuple(plan.azimuths[frame] for frame in plan.chosen)
        orbit = OrbitConfig(num_views=config.num_views, fov_degrees=config.fov_degrees, distance=config.distance)
        elevation = config.elevation if row["elevation"] is None else row["elevation"]
        return Turn(elevation=elevation, size=config.size, orbit=orbit, azimuths=azimuths)

    def frames(self, row: Row) -> NDArray[np.uint8] | None:
        """The synthesised views that were fitted, uint8 [V,S,S,3]; ValueError for a video of another length or size."""
        from recon.video_io import decode_mp4

        if not row["frames_path"] or not self.config.videos:
            return None
        frames, config = decode_mp4(self.read(row["frames_path"])), self.config
        if row["view_plan"]:
            frames = frames[list(plan_of(row, len(frames), OrbitConfig()).chosen)]
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
        opener = beside(path, self.assets.root, self.read)
        look = {"extent": config.extent, "flat": config.light == "flat", "opener": opener}
        return read_shape(self.read(path), path, up=config.up, normalise=config.normalise, **look)

    def reference(self, row: Row) -> NDArray[np.uint8] | None:
        """The image prompt uint8 [H,W,3] over the protocol's background, or None."""
        data = self.read(row["image_path"]) if row["image_path"] else row["image"]
        return on_grey(open_picture(data), self.config.background) if data else None

    def fidelity(self, row: Row, shape: Shape, turn: Turn) -> tuple[Row, NDArray[np.uint8], NDArray[np.uint8]]:
        """The asset against the real object, and the unseen views [V,S,S,4] of both."""
        from factory.evaluation.fidelity import compare, unseen

        path, read = row["truth_path"], lambda name: read_asset(name, self.truth_root, self.storage)
        truth = read_shape(read(path), path, fine=True, opener=beside(path, self.truth_root, read))
        views = shape.pictures(unseen(turn)), truth.pictures(unseen(turn))
        return dict(compare(shape, truth, turn, self.network, views)), *views

    def read(self, path: str) -> bytes:
        """The bytes of a file of the assets; ValueError when it is not there."""
        try:
            return self.assets.get(path)
        except KeyError as error:
            raise ValueError(f"{path} is missing from {self.assets.root}") from error
