"""What a line is to do, row by row: prompts here, meshes in `turntables`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
import ray.data
from ray.data import Dataset

from factory.config import FactoryConfig
from factory.prompt_row import Prompt
from factory.schema import DEAD_LETTERS, LINE, empty_row
from factory.stage import dead_letter

ROWS_PER_READ = 512


class Work(Protocol):
    """Rows by their number."""

    @property
    def ids(self) -> Sequence[str]:
        """One id a row, in order, all different."""
        ...

    def table(self, rows: Sequence[int], attempt: int) -> pa.Table:
        """These rows, with the columns that the first stage takes."""
        ...

    def killed(self, row: int, error: dict[str, Any]) -> tuple[dict[str, Any], pa.Schema]:
        """The dead letter, and its schema, of a row whose workers died; `error` holds its error columns."""
        ...


@dataclass(kw_only=True, slots=True)
class PromptWork:
    """Prompts as `Work`."""

    prompts: Sequence[Prompt]
    config: FactoryConfig

    @property
    def ids(self) -> Sequence[str]:
        return [prompt.prompt_id for prompt in self.prompts]

    def table(self, rows: Sequence[int], attempt: int) -> pa.Table:
        return pa.Table.from_pylist([self._row(row, attempt) for row in rows], schema=LINE)

    def killed(self, row: int, error: dict[str, Any]) -> tuple[dict[str, Any], pa.Schema]:
        return dead_letter(self._row(row, error["attempt"]) | error, self.config), DEAD_LETTERS

    def _row(self, row: int, attempt: int) -> dict[str, Any]:
        prompt = self.prompts[row]
        known = {"prompt_id": prompt.prompt_id, "prompt": prompt.prompt, "seed": prompt.seed}
        return empty_row(**known, source_image=prompt.image, attempt=attempt)


def source(work: Work, rows: Sequence[int], attempt: int) -> Dataset:
    """Rows of work as a dataset, in slices that a task can hold."""
    starts = range(0, len(rows), ROWS_PER_READ)
    return ray.data.from_arrow([work.table(rows[start : start + ROWS_PER_READ], attempt) for start in starts])
