"""A generator of one's own in place of video, views and reconstruct: `VisualHull`, image to Gaussians in one step.

    im3d generate --prompts prompts.txt --out out --chain image,examples.stages.visual_hull:VisualHull,score,commit

One silhouette leaves the object all the depth that the unit ball has, so that this is the simplest generator there is.
A wrapper around a better one, as TRELLIS.2, has the same shape: load a model in `load`, write GAUSSIANS in `process`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa

from factory.ledger.schemas import unpack
from factory.line.network import Network
from factory.line.rows import Row
from factory.line.stage import Stage
from factory.stages import networks
from factory.stages.columns import ELEVATION, GAUSSIANS, IMAGE, NUM_GAUSSIANS

if TYPE_CHECKING:
    from factory.config.settings import FactoryConfig

NUM_POINTS, OPACITY = 6000, 0.9
ELEVATION_RADIANS = 0.25
"""Where nothing else is set by `views.elevation`."""


class VisualHull(Stage):
    """Gaussians, uniform in the space that the image's silhouette leaves, of the colours that it shows there."""

    name, sections = "hull", ("views", "orbit")
    reads, writes = (IMAGE,), (GAUSSIANS, ELEVATION, NUM_GAUSSIANS, pa.field("device", pa.string()))

    @classmethod
    def added_bytes(cls, config: FactoryConfig) -> int:
        return 4 * 17 * NUM_POINTS

    @classmethod
    def networks(cls, config: FactoryConfig) -> list[Network]:
        return [networks.masks(config.views.masks)]

    def load(self) -> None:
        from factory.stages.masker import Masker

        self.masker = Masker(self.config.views.masks)

    def process(self, rows: list[Row]) -> None:
        import torch

        from factory.stages.asset_ply import ply_bytes
        from recon.cameras import turntable
        from recon.hull import init_hull
        from recon.masks import masks_of

        fixed = self.config.views.elevation
        for row in rows:
            image = unpack(row["image"])[None]
            row["elevation"] = ELEVATION_RADIANS if fixed is None else fixed
            cameras = turntable(row["elevation"], image.shape[1], replace(self.config.orbit, num_views=1))
            rgb, alpha = (torch.from_numpy(part) / 255 for part in (image[..., :3], masks_of(image, self.masker)))
            generator = torch.Generator().manual_seed(row["seed"])
            gaussians = init_hull(rgb, alpha, cameras, NUM_POINTS, generator=generator)
            gaussians.opacities = torch.full_like(gaussians.opacities, OPACITY).logit()
            row |= {"gaussians": ply_bytes(gaussians), "num_gaussians": len(gaussians), "device": "cpu"}
