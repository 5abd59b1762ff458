"""Gaussians to a re-rendered turntable and CLIP scores."""

from __future__ import annotations

import numpy as np

from factory.ledger.schemas import pack, unpack
from factory.line.stage import Row, Stage


class Score(Stage):
    """Gaussians to a re-rendered turntable and CLIP scores of the frames and of the re-renders."""

    name = "score"

    def load(self) -> None:
        from eval.clip import Scorer

        self.scorer = Scorer.load(self.config.clip, self.device())

    def process(self, rows: list[Row]) -> None:
        from factory.stages.asset_files import render_turn

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
