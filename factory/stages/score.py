"""Score an asset by CLIP: `Score`, Gaussians to re-rendered views, views and frames to cosines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from factory.ledger.schemas import unpack
from factory.line.network import Network
from factory.line.stage import Row, Stage
from factory.stages import networks
from factory.stages.columns import ELEVATION, FRAMES, GAUSSIANS, IMAGE, SCORES, VIEW_PLAN
from factory.stages.view_plans import plan_of

if TYPE_CHECKING:
    from factory.config.settings import FactoryConfig


class Score(Stage):
    """CLIP scores of the views that are written, and of the frames that were fitted where any were generated."""

    name, sections, grows = "score", ("orbit", "files", "clip"), True
    reads, uses, writes = (IMAGE, GAUSSIANS, ELEVATION), (FRAMES, VIEW_PLAN), (SCORES,)

    @classmethod
    def networks(cls, config: FactoryConfig) -> list[Network]:
        return [networks.judge(one, number) for number, one in enumerate(config.clip.each())]

    def load(self) -> None:
        from eval.clip import Scorer
        from factory.weights.folder import local_judge

        self.scorers = [Scorer.load(local_judge(one), self.device()) for one in self.config.clip.each()]

    def process(self, rows: list[Row]) -> None:
        """Score frames and renders of each row, rendered from the row's own cameras."""
        from eval.similarity import mean_scores
        from factory.stages.renders import render_views

        for row in rows:
            image, sets = unpack(row["image"]), {}
            if row.get("frames") is not None:
                frames = unpack(row["frames"])
                sets["frames"] = frames[list(plan_of(row, len(frames), self.config.orbit).chosen), ..., :3]
            sets["renders"] = render_views(row, self.config, self.device())[..., :3]
            row["scores"] = [
                score
                for scorer in self.scorers
                for score in mean_scores(scorer, sets, row["prompt"], image[..., :3]).items()
            ]
