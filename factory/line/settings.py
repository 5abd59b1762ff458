"""Set where and how the stages of a line run: a `Pool` of actors a stage, and `LineConfig`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from factory.line.pools import ALL, Pools
from factory.storage.user_error import UserError

Runner = Literal["ray", "inprocess"]


@dataclass(kw_only=True, slots=True)
class Pool:
    """The actors of one stage."""

    actors: int = 1
    """How many at least, >= 1; each loads its models once."""
    max_actors: int | None = None
    """How many at most, while rows wait; None: on a cluster the pool of a stage that grows takes what others leave."""
    cpus: float = 0.25
    """Logical CPUs that each reserves."""
    gpus: float = 0.0
    """GPUs that each reserves; a fraction lets stages share one."""
    threads: int = 1
    """Threads that its mathematics may use, >= 1."""
    batch: int = 1
    """Rows at a time, >= 1."""
    in_flight: int = 2
    """Blocks that are on their way to an actor or in it, >= 1; two keep it busy."""
    labels: tuple[str, ...] = ()
    """Nodes it may use, by Ray's labels, as ray.io/accelerator-type=H100."""
    row_timeout: float = 3600.0
    """Seconds that a row may take, > 0; a batch may take as many times longer as it has rows."""
    max_rows: int | None = None
    """A process is replaced after so many rows, >= 1."""
    max_growth_gb: float | None = None
    """A process is replaced when it has grown by so many GiB since its models were loaded, on the host and on GPUs
    together, > 0; pages of Ray's object store do not count."""

    def __post_init__(self) -> None:
        if min(self.actors, self.threads, self.batch, self.in_flight) < 1 or self.cpus < 0 or self.gpus < 0:
            raise ValueError(
                "a pool needs actors, threads, batch and in_flight of at least 1, cpus and gpus of at least 0"
            )
        if self.max_actors is not None and self.max_actors < self.actors:
            raise ValueError(f"max_actors is {self.max_actors}; it must be at least actors = {self.actors}")
        given = [value for value in (self.row_timeout, self.max_growth_gb, self.max_rows) if value is not None]
        if min(given) <= 0:
            raise ValueError("row_timeout, max_rows and max_growth_gb must be above 0")
        if bad := [label for label in self.labels if not all(label.partition("="))]:
            raise ValueError(f"label {bad[0]!r} is none; write key=value, as ray.io/accelerator-type=H100")


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
            raise ValueError(f"line.rows_per_block is {self.rows_per_block}; it must lie in [1, 10000]")
        if not 0 < self.max_failed_share <= 1:
            raise ValueError(f"line.max_failed_share is {self.max_failed_share}; it must lie in (0, 1]")

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
