"""Hand prompts to a line as its work: `PromptWork`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from factory.config.settings import FactoryConfig, fingerprint
from factory.ledger.keys import WorkIds
from factory.ledger.schemas import DEAD_LETTERS, LINE, empty_row
from factory.line.stage import dead_letter
from factory.prompts.prompt_rows import PromptRows
from factory.prompts.row import Prompt


class PromptWork:
    """Prompts as `Work`."""

    def __init__(self, prompts: Sequence[Prompt], config: FactoryConfig) -> None:
        self.prompts, self.config = PromptRows.of(prompts), config

    @property
    def ids(self) -> WorkIds:
        return self.prompts.ids

    def table(self, rows: Sequence[int], attempt: int) -> pa.Table:
        taken = self.prompts.take(rows).rename_columns(["prompt_id", "prompt", "seed", "size_metres", "source_image"])
        empty = {field.name: pa.nulls(len(taken), field.type) for field in LINE if field.name not in taken.column_names}
        empty["attempt"] = pa.array([attempt] * len(taken), LINE.field("attempt").type)
        return pa.table({name: empty[name] if name in empty else taken[name] for name in LINE.names}, schema=LINE)

    def killed(self, row: int, error: dict[str, Any]) -> tuple[dict[str, Any], pa.Schema]:
        prompt = self.prompts[row]
        known = {"prompt_id": prompt.prompt_id, "prompt": prompt.prompt, "seed": prompt.seed}
        known |= {"size_metres": prompt.size_metres}
        letter = empty_row(**known, attempt=error["attempt"]) | error
        return dead_letter(letter, fingerprint(self.config)), DEAD_LETTERS
