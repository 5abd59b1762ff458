"""Score an asset by CLIP: `Score`, Gaussians to re-rendered views, views and frames to cosines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from factory.ledger.schemas import unpack
from factory.line.network import Network
from factory.line.stage import Row, Stage
from factory.stages import networks
from factory.stages.columns import ELEVATION, FRAMES, GAUSSIANS, IMAGE, SCORES

if TYPE_CHECKING:
    from factory.config.settings import FactoryConfig


class Score(Stage):
    """CLIP scores of the views that are written, and of the frames where any were generated."""

    name, sections = "score", ("orbit", "files", "clip")
    reads, uses, writes = (IMAGE, GAUSSIANS, ELEVATION), (FRAMES,), (SCORES,)

    @classmethod
    def networks(cls, config: FactoryConfig) -> list[Network]:
        return [networks.judge(config.clip)]

    def load(self) -> None:
        from eval.clip import Scorer
        from factory.weights.folder import local_judge

        self.scorer = Scorer.load(local_judge(self.config.clip), self.device())

    def process(self, rows: list[Row]) -> None:
        """Score frames and renders of each row, rendered from the row's own cameras."""
        from eval.similarity import mean_scores
        from factory.stages.renders import render_views, side_of_renders

        for row in rows:
            image, frames = unpack(row["image"]), row.get("frames")
            views = render_views(row["gaussians"], row["elevation"], side_of_renders(row), self.config, self.device())
            sets = {"frames": unpack(frames)[..., :3]} if frames is not None else {}
            scores = mean_scores(self.scorer, sets | {"renders": views[..., :3]}, row["prompt"], image[..., :3])
            row["scores"] = list(scores.items())
