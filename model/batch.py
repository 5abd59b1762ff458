"""Check that the columns of a batch of prompts go together: `check_batch`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def check_batch(prompts: Sequence[str], **columns: Sequence[Any] | np.ndarray) -> None:
    """Raise ValueError unless every column is as long as `prompts`, which must not be empty."""
    if not len(prompts):
        raise ValueError("the batch is empty; give at least one prompt")
    for name, column in columns.items():
        if len(column) != len(prompts):
            raise ValueError(f"{len(prompts)} prompts but {len(column)} {name}; give one each")
