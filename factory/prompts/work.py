"""Hand prompts to a line as its work: `PromptWork`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from factory.config.settings import FactoryConfig, fingerprint
from factory.ledger.schemas import DEAD_LETTERS, LINE, empty_row
from factory.line.stage import dead_letter
from factory.prompts.row import Prompt


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
        return dead_letter(self._row(row, error["attempt"]) | error, fingerprint(self.config)), DEAD_LETTERS

    def _row(self, row: int, attempt: int) -> dict[str, Any]:
        prompt = self.prompts[row]
        known = {"prompt_id": prompt.prompt_id, "prompt": prompt.prompt, "seed": prompt.seed}
        known |= {"size_metres": prompt.size_metres}
        return empty_row(**known, source_image=prompt.image, attempt=attempt)
