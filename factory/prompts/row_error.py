"""Say what is wrong with one row of a table: `RowError`."""

from __future__ import annotations

from typing import Any

from factory.storage.credentials import scrub


class RowError(ValueError):
    """A row that cannot be used; `kind` is its error type in the dead letters, `prompt_id` its id where known."""

    def __init__(self, kind: str, message: str, prompt_id: str | None = None) -> None:
        super().__init__(scrub(message))
        self.kind = kind
        self.prompt_id = prompt_id


def short(value: Any) -> str:
    """A value for a message, up to 80 characters of what any table can hold."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of thousands of digits
        text = f"a {type(value).__name__}"
    text = text if len(text) <= 80 else text[:77] + "..."
    return text.encode("utf-8", "replace").decode("utf-8")
