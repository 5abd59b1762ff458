"""State what a line is to do row by row, be it prompts, meshes or row groups: the protocol `Work`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from factory.ledger.keys import WorkIds

if TYPE_CHECKING:
    from ray.data import Dataset

ROWS_PER_READ = 512


class Work(Protocol):
    """Rows by their number."""

    @property
    def ids(self) -> WorkIds:
        """One id a row, in order, all different."""
        ...

    def table(self, rows: Sequence[int], attempt: int) -> pa.Table:
        """These rows, with the columns that the first stage takes."""
        ...

    def killed(self, row: int, error: dict[str, Any]) -> tuple[dict[str, Any], pa.Schema]:
        """The dead letter, and its schema, of a row whose workers died; `error` holds its error columns."""
        ...


def source(work: Work, rows: Sequence[int], attempt: int) -> Dataset:
    """Rows of work as a dataset, in slices that a task can hold."""
    import ray.data

    starts = range(0, len(rows), ROWS_PER_READ)
    return ray.data.from_arrow([work.table(rows[start : start + ROWS_PER_READ], attempt) for start in starts])
