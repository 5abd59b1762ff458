"""Set how a line runs, and what differs from the default pools of its stages: `LineConfig`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from factory.line.placement import Pool
from factory.line.pool_flags import ALL, Pools
from recon.user_error import UserError

Runner = Literal["ray", "inprocess"]


@dataclass(kw_only=True, slots=True)
class LineConfig:
    """Where and how the stages run; never changes what they make."""

    runner: Runner = "ray"
    """'inprocess' runs the stages in this process, a row at a time and without Ray, to debug them."""
    address: str = "local"
    """'local' starts Ray on this machine; 'auto' or a ray:// address joins a cluster."""
    autoscaling: bool = False
    """The cluster grows on demand: what it lacks now is waited for instead of refused."""
    rows_per_block: int = 1
    """Rows that travel, and are retried, together, in [1, 10000]; 1 to 8 while they carry videos."""
    max_failed_share: float = 0.5
    """Give up once more than this share of at least 20 rows has failed, in (0, 1]; a broken model is not hidden."""
    pools: Pools = field(default_factory=Pools)
    """By stage, or for 'all', what differs from the stage's own pool: video=2x0.5gpu reconstruct=4-16x1cpu,batch=2"""

    def __post_init__(self) -> None:
        if not 1 <= self.rows_per_block <= 10_000:
            raise UserError(f"line.rows_per_block is {self.rows_per_block}; it must lie in [1, 10000]")
        if not 0 < self.max_failed_share <= 1:
            raise UserError(f"line.max_failed_share is {self.max_failed_share}; it must lie in (0, 1]")

    def pool(self, stage: str, default: Pool) -> Pool:
        """The pool of a stage whose own default is given.

        Raises:
            UserError: for values out of range.
        """
        changes = {**self.pools.get(ALL, {}), **self.pools.get(stage, {})}
        try:
            return replace(default, **changes)
        except (TypeError, ValueError) as error:
            raise UserError(f"line.pools.{stage}: {error}") from error
