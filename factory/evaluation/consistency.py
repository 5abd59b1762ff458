"""Judge how consistent an asset's frames are, by features, masks and the yield gate: `ConsistencyJudge`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eval import consistency
from eval.fidelity import Perceptual
from factory.evaluation.viewable_asset import Shape, Turn

COLUMNS = (*consistency.COLUMNS, "yield_probability")


class ConsistencyJudge:
    """Loads the mask network and the yield gate; `network` tells pictures apart."""

    def __init__(self, network: Perceptual) -> None:
        from recon.masks import PocketMasker
        from recon.yield_gate import load_yield_model

        self.network, self.masker, self.gate = network, PocketMasker.load(), load_yield_model()

    def measure(
        self, frames: NDArray[np.uint8], turn: Turn, shape: Shape | None, known_yield: float | None = None
    ) -> dict[str, float | None]:
        """The COLUMNS of frames uint8 [V,S,S,3]; without a shape the gate's alone.

        Args:
            turn: the cameras of the frames. shape: what was fitted to them.
            known_yield: the gate's verdict, where there is one; else it makes a short fit of its own.
        """
        from recon.yield_gate import MIN_FRAMES, measure

        found: dict[str, float | None] = {"yield_probability": known_yield}
        if known_yield is None and len(frames) >= MIN_FRAMES:
            features = measure(frames, self.masker(frames), turn.elevation, turn.orbit, turn.azimuths)
            found["yield_probability"] = self.gate.probability(features)
        if shape is not None:
            renders = shape.pictures(turn)
            found |= consistency.residual(frames, renders[..., :3], self.network)
            found["flow_residual"] = consistency.flow_residual(frames, renders)
            depth = shape.depths(turn)
            found["feature_consistency"] = consistency.feature_consistency(frames, depth, turn.cameras, self.network)
        return found
