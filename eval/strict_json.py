"""Write JSON that every reader takes, null for numbers that are not finite: `as_json`."""

from __future__ import annotations

import json
import math
from typing import Any


def as_json(value: Any) -> bytes:
    """Dictionaries, lists and plain values as indented UTF-8; nan and the infinities, which JSON lacks, become null."""
    return json.dumps(_finite(value), indent=2, allow_nan=False).encode()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
