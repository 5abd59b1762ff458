"""Find masks of a turntable's frames and the elevation of its cameras: the stage `FindViews`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from factory.ledger.schemas import pack, unpack
from factory.line.network import Network
from factory.line.stage import Row, Stage
from factory.stages import networks
from factory.stages.columns import ELEVATION, FRAMES, MASKS, VIEW_PLAN, pixels_of_frames
from factory.stages.masker import Masker
from factory.stages.view_plans import as_column, measured, plan_of

if TYPE_CHECKING:
    from factory.config.settings import FactoryConfig, ViewsConfig
    from model.views import ViewPlan
    from recon.config import OrbitConfig


class Found(NamedTuple):
    """What is found out about a turntable."""

    frames: NDArray[np.uint8]
    """[V,S,S,3|4] on white."""
    masks: NDArray[np.uint8]
    """Coverage [V,S,S]."""
    elevation: float
    """Of the cameras, radians."""
    plan: ViewPlan
    """With azimuths as they are, where the model could not promise them."""

    def columns(self) -> Row:
        """As a row has them; frames and masks packed."""
        return {
            "frames": pack(self.frames),
            "masks": pack(self.masks),
            "elevation": self.elevation,
            "view_plan": as_column(self.plan),
        }


class ViewFinder:
    """Masks and elevation of frames as `ViewsConfig` says. Loads the elevation estimator, if one is wanted."""

    def __init__(self, config: ViewsConfig, orbit: OrbitConfig, device: str = "cpu", threads: int = 1) -> None:
        from factory.stages.dino_elevation import load_estimator
        from model.weights import fetched

        self.config, self.orbit, self.masker = config, orbit, Masker(config.masks, device, threads)
        self.estimator = load_estimator(fetched(config.estimator)).to(device) if config.elevation is None else None

    def find(self, frames: NDArray[np.uint8], plan: ViewPlan) -> Found:
        """What is found out about a turntable uint8 [V,S,S,3|4] whose model promises `plan`.

        Raises:
            ValueError: if the frames are no such turntable, or where the plan is a guess no turn at all; where nothing
                fixes the elevation, if the fit uses less than four.
        """
        from recon.masks import masks_of
        from recon.over_white import over_white

        masks = masks_of(frames, self.masker)
        frames = over_white(frames, masks)
        plan = plan if plan.exact else measured(plan, frames, masks)
        elevation = self.config.elevation if plan.elevation is None else plan.elevation
        if elevation is None:
            chosen = list(plan.chosen)
            elevation = self._elevation(frames[chosen], masks[chosen], [plan.azimuths[k] for k in chosen], plan)
        return Found(frames, masks, elevation, plan)

    def _elevation(
        self, frames: NDArray[np.uint8], masks: NDArray[np.uint8], azimuths: Sequence[float], plan: ViewPlan
    ) -> float:
        """The elevation of the chosen views; radians, as all angles."""
        from recon.coherence import coherent_elevation
        from recon.elevation import quarters

        assert self.estimator is not None, "it is loaded wherever nothing fixes the elevation"
        estimate = self.estimator.estimate(frames[quarters(azimuths)])
        if not self.config.coherence:
            return estimate
        seen = replace(self.orbit, fov_degrees=plan.fov_degrees, distance=plan.distance)
        return coherent_elevation(masks, estimate, seen, azimuths)


class FindViews(Stage):
    """Masks and elevation of the generated frames; opaque frames are put on white by their masks."""

    name, sections, grows = "views", ("views", "orbit"), True
    reads, uses, writes = (FRAMES,), (VIEW_PLAN,), (FRAMES, MASKS, ELEVATION, VIEW_PLAN)

    @classmethod
    def added_bytes(cls, config: FactoryConfig) -> int:
        return pixels_of_frames(config)

    @classmethod
    def networks(cls, config: FactoryConfig) -> list[Network]:
        return [networks.masks(config.views.masks), *networks.elevation(config.views)]

    def load(self) -> None:
        self.finder = ViewFinder(self.config.views, self.config.orbit, self.device(), self.pool.threads)

    def process(self, rows: list[Row]) -> None:
        """Find each row's masks, elevation and azimuths, and put opaque frames on white."""
        for row in rows:
            frames = unpack(row["frames"])
            found = self.finder.find(frames, plan_of(row, len(frames), self.config.orbit)).columns()
            row.update(found if frames.shape[-1] == 3 else found | {"frames": row["frames"]})
