"""Judge an asset: `Score`, Gaussians to re-rendered views, CLIP scores, and how usable it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from factory.ledger.schemas import unpack
from factory.line.network import Network
from factory.line.stage import Row, Stage
from factory.stages import networks
from factory.stages.columns import (
    ELEVATION,
    FRAMES,
    GAUSSIANS,
    IMAGE,
    MASKS,
    MEASURES,
    REASONS,
    SCORES,
    USABLE,
    VIEW_PLAN,
)  # fmt: skip
from factory.stages.view_plans import orbit_of, plan_of

if TYPE_CHECKING:
    from factory.config.settings import FactoryConfig

EMBEDDED = "clip_text_renders_pocket"
"""The score of the judge that the check of assets was calibrated with; others have other scales."""


class Score(Stage):
    """CLIP scores of the views that are written, and of the frames that were fitted where any were generated; and the
    probability that the asset is of use, with reasons."""

    name, sections, grows = "score", ("orbit", "files", "clip", "quality"), True
    reads, uses = (IMAGE, GAUSSIANS, ELEVATION), (FRAMES, MASKS, VIEW_PLAN)
    writes = (SCORES, USABLE, REASONS, MEASURES)

    @classmethod
    def networks(cls, config: FactoryConfig) -> list[Network]:
        return [networks.judge(one, number) for number, one in enumerate(config.clip.each())]

    def load(self) -> None:
        from eval.clip import Scorer
        from factory.weights.folder import local_judge
        from recon.quality import load_quality_model

        self.scorers = [Scorer.load(local_judge(one), self.device()) for one in self.config.clip.each()]
        self.quality = load_quality_model() if self.config.quality.enabled else None

    def process(self, rows: list[Row]) -> None:
        """Judge each row, rendered from its own cameras."""
        for row in rows:
            row["scores"] = self._scores(row)
            row.update(usable=None, quality_reasons=None, measures=[])
            if self.quality is not None and row.get("frames") is not None and row.get("masks") is not None:
                self._judge(row)

    def _scores(self, row: Row) -> list[tuple[str, float]]:
        from eval.similarity import mean_scores
        from factory.stages.renders import render_views

        image, sets = unpack(row["image"]), {}
        if row.get("frames") is not None:
            frames = unpack(row["frames"])
            sets["frames"] = frames[list(plan_of(row, len(frames), self.config.orbit).chosen), ..., :3]
        sets["renders"] = render_views(row, self.config, self.device())[..., :3]
        return [
            score
            for scorer in self.scorers
            for score in mean_scores(scorer, sets, row["prompt"], image[..., :3]).items()
        ]

    def _judge(self, row: Row) -> None:
        import numpy as np

        from factory.stages.asset_ply import gaussians_of
        from recon.quality import MEASURES, measure

        assert self.quality is not None, "the caller looks"
        frames, masks = unpack(row["frames"]), unpack(row["masks"])
        plan = plan_of(row, len(frames), self.config.orbit)
        chosen, similarity = list(plan.chosen), dict(row["scores"]).get(EMBEDDED)
        found = measure(
            gaussians_of(row["gaussians"]).to(self.device()),
            np.concatenate([frames[chosen, ..., :3], masks[chosen, ..., None]], -1),
            row["elevation"],
            orbit_of(row, self.config.orbit),
            [plan.azimuths[k] for k in chosen],
            None if similarity is None else 1 - similarity / 100,
        )
        row["usable"] = 1 - self.quality.probability(found)
        row["quality_reasons"] = self.quality.reasons(found, MEASURES)
        row["measures"] = [(f"quality_{name}", value) for name, value in found.items()]
