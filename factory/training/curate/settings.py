"""Set how `im3d curate` judges and chooses assets: `CurateConfig`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from factory.line.placement import Pool
from recon.user_error import UserError


@dataclass(kw_only=True, slots=True)
class CurateConfig:
    """How assets are judged and chosen."""

    best: int | None = None
    """Keep the so many training assets that agree best; None: no limit."""
    threshold: float | None = None
    """Keep training assets of at least this score, 100 x cosine; None: no limit."""
    views: int = 2
    """Views of each turntable that are scored, evenly spaced; their mean is the asset's."""
    pool: Pool = field(default_factory=Pool)
    """The actors that look at pictures; each row is a row group of a shard."""
    address: str = "local"
    """'local' starts Ray on this machine; 'auto' or a ray:// address joins a cluster."""

    def __post_init__(self) -> None:
        if self.best is None and self.threshold is None:
            raise UserError("give --best N or --threshold SCORE, or both; without one nothing would be chosen")
        if self.best is not None and self.best < 1:
            raise UserError(f"best is {self.best}; it must be at least 1")
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise UserError(f"threshold is {self.threshold}; it must be a finite score")
        if self.views < 1:
            raise UserError(f"views is {self.views}; it must be at least 1")
