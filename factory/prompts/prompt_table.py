"""Read a table of prompts, each row with a stable `prompt_id` and seed, or with its reason: `read_prompts`.

A row may bring `prompt_id` (or `id`), `seed`, and `image` to start from: bytes, {bytes, path}, or a path beside
the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from factory.ledger.keys import digest
from factory.prompts.input_formats import Raw, missing_column, read_rows
from factory.prompts.row import COLUMNS, Prompt, RowError, check_row, clean, given_id, text_of
from factory.prompts.spool import Spool
from factory.storage.store import StorageConfig
from recon.user_error import UserError


@dataclass(kw_only=True, slots=True)
class Rejected:
    """A row that never enters the line. `prompt_id` is unique in the table and may hold any text."""

    prompt_id: str
    prompt: str
    error_type: str
    error_message: str


@dataclass(kw_only=True, slots=True)
class PromptTable:
    """A checked table: what to make and what to write to the dead letters at once."""

    prompts: list[Prompt] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.prompts) + len(self.rejected)


def read_prompts(
    uri: str, limit: int | None = None, image_root: str | None = None, storage: StorageConfig | None = None
) -> PromptTable:
    """Read and check a table of prompts.

    Args:
        uri: local path or s3:// address of a txt, csv, jsonl or parquet file.
        limit: only the first rows, > 0.
        image_root: folder that image paths are relative to and may not leave; the table's own by default.
        storage: how s3:// is reached.

    Raises:
        ValueError: when the file is missing or no table, holds no rows, or has no `prompt` column.
    """
    if limit is not None and limit < 1:
        raise UserError(f"limit is {limit}; it must be at least 1")
    root = image_root or uri.rpartition("/")[0] or "."
    table, columns, seen, spool = PromptTable(), dict[str, None](), dict[str, int](), Spool()
    for raw in _first(read_rows(uri, storage=storage, columns=COLUMNS), limit):
        columns.update(dict.fromkeys(raw.values))
        try:
            prompt = check_row(raw, root, spool)
            _refuse_repeat(prompt.prompt_id, raw.number, seen)
            table.prompts.append(prompt)
        except RowError as error:
            table.rejected.append(_rejected(raw, error))
    _make_ids_unique(table.rejected, seen)
    if not table.prompts and not table.rejected:
        raise UserError(f"{uri}: the table is empty; give at least one prompt")
    if columns and "prompt" not in columns:
        raise missing_column(uri, "prompt", columns)
    return table


def _first(rows: Iterator[Raw], limit: int | None) -> Iterator[Raw]:
    for count, raw in enumerate(rows):
        if limit is not None and count >= limit:
            return
        yield raw


def _refuse_repeat(prompt_id: str, number: int, seen: dict[str, int]) -> None:
    if prompt_id in seen:
        message = f"prompt_id {prompt_id!r} repeats row {seen[prompt_id]}; give it its own id or seed"
        raise RowError("DuplicateId", message, prompt_id)
    seen[prompt_id] = number


def _rejected(raw: Raw, error: RowError) -> Rejected:
    """The dead letter of a row, under its own id where it has one, else under a hash of what was read."""
    prompt = raw.values.get("prompt")
    prompt = clean(prompt) if isinstance(prompt, str) else ""
    given = given_id(raw.values)
    name = error.prompt_id or (digest(prompt, error.kind) if given is None else clean(text_of(given)))
    return Rejected(prompt_id=name, prompt=prompt, error_type=error.kind, error_message=str(error))


def _make_ids_unique(rejected: list[Rejected], seen: dict[str, int]) -> None:
    """Give each dead letter an id of its own. A name that is taken gets "~2", "~3", ...

    No given id may hold a tilde; a rejected one may, so that every name is looked up.
    """
    copies: dict[str, int] = {}
    for row in rejected:
        unique, count = row.prompt_id, copies.get(row.prompt_id, 1)
        while unique in seen:
            count += 1
            unique = f"{row.prompt_id}~{count}"
        copies[row.prompt_id] = count
        seen[unique] = 0
        row.prompt_id = unique
