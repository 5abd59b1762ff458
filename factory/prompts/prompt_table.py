"""Read a table of prompts, each row with a stable `prompt_id` and seed, or with its reason: `read_prompts`.

A row may bring `prompt_id` (or `id`), `seed`, and `image` to start from: bytes, {bytes, path}, or a path beside
the table.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from factory.ledger.keys import Keys, KeySet, digest, packed
from factory.prompts.input_formats import read_pieces
from factory.prompts.plain_batches import plain_rows
from factory.prompts.prompt_rows import PromptRows
from factory.prompts.raw_rows import Batch, Raw, missing_column
from factory.prompts.row import COLUMNS, Prompt, check_row, clean, given_id, text_of
from factory.prompts.row_error import RowError
from factory.prompts.row_images import RowImages
from factory.prompts.table_files import table_root
from factory.storage.store import StorageConfig
from recon.user_error import UserError


@dataclass(kw_only=True, slots=True)
class Rejected:
    """A row that never enters the line. `prompt_id` is unique in the table and may hold any text."""

    prompt_id: str
    prompt: str
    error_type: str
    error_message: str
    number: int = 0
    """Position in the table, from 1."""


@dataclass(kw_only=True, slots=True)
class PromptTable:
    """A checked table: what to make and what to write to the dead letters at once."""

    prompts: PromptRows = field(default_factory=PromptRows)
    rejected: list[Rejected] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.prompts) + len(self.rejected)

    @property
    def keys(self) -> Keys:
        """The ledger's keys of all rows [N,2]."""
        return np.concatenate([self.prompts.keys, packed(row.prompt_id for row in self.rejected)])


def read_prompts(
    uri: str, limit: int | None = None, image_root: str | None = None, storage: StorageConfig | None = None,
    image_hosts: Sequence[str] = (),
) -> PromptTable:  # fmt: skip
    """Read and check a table of prompts; the rows wait on disk, see `PromptRows`.

    Args:
        uri: local path or s3:// address of a file, a folder of shards or a pattern, see `table_files`.
        limit: only the first rows, > 0.
        image_root: folder that image paths are relative to and may not leave; the table's own by default.
        storage: how s3:// is reached.
        image_hosts: that https:// addresses of images may name; without any, none is fetched.

    Raises:
        ValueError: when the file is missing or no table, holds no rows, or has no `prompt` column.
    """
    if limit is not None and limit < 1:
        raise UserError(f"limit is {limit}; it must be at least 1")
    table, columns = PromptTable(), dict[str, None]()
    images = RowImages(image_root or table_root(uri), image_hosts)
    reading = _Reading(table=table, images=images, columns=columns)
    for raw in images.ahead(reading.single(_first(read_pieces(uri, storage=storage, columns=COLUMNS), limit))):
        reading.row(raw)
    table.prompts.close()
    _reject_repeats(table)
    table.rejected.sort(key=lambda row: row.number)
    if table.rejected:
        _make_ids_unique(table.rejected, KeySet(table.prompts.keys))
    if not table.prompts and not table.rejected:
        raise UserError(f"{uri}: the table is empty; give at least one prompt")
    if columns and "prompt" not in columns:
        raise missing_column(uri, "prompt", columns)
    return table


def _first(pieces: Iterator[Raw | Batch], limit: int | None) -> Iterator[Raw | Batch]:
    left = limit
    for piece in pieces:
        if left is None:
            yield piece
            continue
        if isinstance(piece, Batch):
            piece.columns = piece.columns.slice(0, left)
        yield piece
        left -= piece.columns.num_rows if isinstance(piece, Batch) else 1
        if left <= 0:
            return


@dataclass(kw_only=True, slots=True)
class _Reading:
    """Puts rows into a table, each as a prompt or as a rejected row; notes the `columns` that there are."""

    table: PromptTable
    images: RowImages
    columns: dict[str, None]

    def row(self, raw: Raw) -> None:
        """One row."""
        try:
            self.table.prompts.add(check_row(raw, self.images, self.table.prompts.spool), raw.number)
        except RowError as error:
            self.table.rejected.append(_rejected(raw, error))

    def single(self, pieces: Iterator[Raw | Batch]) -> Iterator[Raw]:
        """The rows that must be looked at one by one; plain ones of a batch are put into the table at once."""
        for piece in pieces:
            if isinstance(piece, Raw):
                self.columns.update(dict.fromkeys(piece.values))
                yield piece
                continue
            self.columns.update(dict.fromkeys(piece.columns.schema.names))
            plain = plain_rows(piece)
            if plain is not None:
                self.table.prompts.extend(plain.ids, plain.prompts, plain.seeds, piece.first + plain.places)
            known = set() if plain is None else set(plain.places.tolist())
            if len(known) < piece.columns.num_rows:
                yield from (raw for place, raw in enumerate(piece.rows()) if place not in known)


def _reject_repeats(table: PromptTable) -> None:
    """Of rows with one id the first one stays."""
    keys, numbers = table.prompts.keys, table.prompts.numbers
    order = np.argsort(keys[:, 0], kind="stable")
    same = np.diff(keys[order, 0]) == 0
    if not same.any():
        return
    alike, leaders, repeats = np.union1d(order[1:][same], order[:-1][same]), dict[tuple[int, ...], int](), list[int]()
    for place in alike[np.argsort(numbers[alike])].tolist():
        leader = leaders.setdefault(tuple(keys[place].tolist()), place)
        if leader != place:
            repeats.append(place)
            table.rejected.append(_repeated(table.prompts[place], int(numbers[place]), int(numbers[leader])))
    table.prompts.drop(np.array(repeats, np.int64))


def _repeated(prompt: Prompt, number: int, first: int) -> Rejected:
    return Rejected(
        prompt_id=prompt.prompt_id,
        prompt=clean(prompt.prompt),
        error_type="DuplicateId",
        error_message=f"prompt_id {prompt.prompt_id!r} repeats row {first}; give it its own id or seed",
        number=number,
    )


def _rejected(raw: Raw, error: RowError) -> Rejected:
    """The dead letter of a row, under its own id where it has one, else under a hash of what was read."""
    prompt = raw.values.get("prompt")
    prompt = clean(prompt) if isinstance(prompt, str) else ""
    given = given_id(raw.values)
    name = error.prompt_id or (digest(prompt, error.kind) if given is None else clean(text_of(given)))
    return Rejected(prompt_id=name, prompt=prompt, error_type=error.kind, error_message=str(error), number=raw.number)


def _make_ids_unique(rejected: list[Rejected], taken: Container[str]) -> None:
    """Give each dead letter an id of its own. A name that is taken gets "~2", "~3", ...

    No given id may hold a tilde; a rejected one may, so that every name is looked up.
    """
    copies, used = dict[str, int](), set[str]()
    for row in rejected:
        unique, count = row.prompt_id, copies.get(row.prompt_id, 1)
        while unique in used or unique in taken:
            count += 1
            unique = f"{row.prompt_id}~{count}"
        copies[row.prompt_id] = count
        used.add(unique)
        row.prompt_id = unique
