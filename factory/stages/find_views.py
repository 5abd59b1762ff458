"""Find masks of a turntable's frames and the elevation of its cameras: the stage `FindViews`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from factory.ledger.schemas import pack, unpack
from factory.line.network import Network
from factory.line.stage import Row, Stage
from factory.stages import networks
from factory.stages.columns import ELEVATION, FRAMES, MASKS, side_of
from factory.stages.masker import Masker

if TYPE_CHECKING:
    from factory.config.settings import FactoryConfig, ViewsConfig
    from recon.config import OrbitConfig


class ViewFinder:
    """Masks and elevation of frames as `ViewsConfig` says. Loads the elevation estimator, if one is wanted."""

    def __init__(self, config: ViewsConfig, orbit: OrbitConfig, device: str = "cpu", threads: int = 1) -> None:
        from factory.stages.dino_elevation import load_estimator
        from model.weights import fetched

        self.config, self.orbit, self.masker = config, orbit, Masker(config.masks, device, threads)
        self.estimator = load_estimator(fetched(config.estimator)) if config.elevation is None else None

    def find(self, frames: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], float]:
        """Masks uint8 [V,S,S] and elevation in radians of a turntable uint8 [V,S,S,3|4].

        Raises:
            ValueError: if the frames are no such turntable; where nothing fixes the elevation, of at least four.
        """
        from recon.coherence import coherent_elevation
        from recon.masks import masks_of

        masks = masks_of(frames, self.masker)
        if self.config.elevation is not None:
            return masks, self.config.elevation
        assert self.estimator is not None, "it is loaded wherever nothing fixes the elevation"
        estimate = self.estimator.estimate(frames)
        return masks, coherent_elevation(masks, estimate, self.orbit) if self.config.coherence else estimate


class FindViews(Stage):
    """Masks and elevation of the generated frames; opaque frames are put on white by their masks."""

    name, sections = "views", ("views", "orbit")
    reads, writes = (FRAMES,), (FRAMES, MASKS, ELEVATION)

    @classmethod
    def added_bytes(cls, config: FactoryConfig) -> int:
        return side_of(config) ** 2 * config.orbit.num_views

    @classmethod
    def networks(cls, config: FactoryConfig) -> list[Network]:
        return [networks.masks(config.views.masks), *networks.elevation(config.views)]

    def load(self) -> None:
        self.finder = ViewFinder(self.config.views, self.config.orbit, self.device(), self.pool.threads)

    def process(self, rows: list[Row]) -> None:
        """Find each row's masks and elevation, and put opaque frames on white."""
        from recon.over_white import over_white

        for row in rows:
            frames = unpack(row["frames"])
            masks, row["elevation"] = self.finder.find(frames)
            row["masks"] = pack(masks)
            if frames.shape[-1] == 3:
                row["frames"] = pack(over_white(frames, masks))
