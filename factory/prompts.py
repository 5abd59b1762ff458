"""Prompts in: any table -> rows with a stable `prompt_id` and seed, and rejected rows with their reason.

A row may bring `prompt_id` (or `id`), `seed`, and `image` to start from: bytes, {bytes, path}, or a path beside
the table.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from factory.readers import Raw, missing_column, read_rows
from factory.secrets import scrub
from factory.spool import Spool, Spooled
from factory.store import StorageConfig

MAX_PROMPT_BYTES = 4096
MAX_IMAGE_BYTES = 32 << 20
MAX_SEED = 2**63 - 1
ID_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_ID_COLUMNS = ("prompt_id", "id")
COLUMNS = ("prompt", *_ID_COLUMNS, "seed", "image")
"""What is read of a table; nothing else is looked at."""
_WHOLE = re.compile(r"\s*\+?[0-9]+\s*", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@dataclass(kw_only=True, slots=True)
class Prompt:
    """One job for the line."""

    prompt_id: str
    prompt: str
    seed: int
    picture: Spooled | None = None

    @property
    def image(self) -> bytes | None:
        """The encoded picture (PNG, JPEG, WebP) to start from, read from disk; None without one."""
        return self.picture.read() if self.picture else None


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


class RowError(ValueError):
    """A row that cannot be used; `kind` is its error type in the dead letters, `prompt_id` its id where known."""

    def __init__(self, kind: str, message: str, prompt_id: str | None = None) -> None:
        super().__init__(scrub(message))
        self.kind = kind
        self.prompt_id = prompt_id


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
        raise ValueError(f"limit is {limit}; it must be at least 1")
    root = image_root or uri.rpartition("/")[0] or "."
    table, columns, seen, spool = PromptTable(), dict[str, None](), dict[str, int](), Spool()
    for raw in _first(read_rows(uri, storage=storage, columns=COLUMNS), limit):
        columns.update(dict.fromkeys(raw.values))
        try:
            prompt = _check(raw, root, spool)
            _refuse_repeat(prompt.prompt_id, raw.number, seen)
            table.prompts.append(prompt)
        except RowError as error:
            table.rejected.append(_rejected(raw, error))
    _name_apart(table.rejected, seen)
    if not table.prompts and not table.rejected:
        raise ValueError(f"{uri}: the table is empty; give at least one prompt")
    if columns and "prompt" not in columns:
        raise missing_column(uri, "prompt", columns)
    return table


def _first(rows: Iterator[Raw], limit: int | None) -> Iterator[Raw]:
    for count, raw in enumerate(rows):
        if limit is not None and count >= limit:
            return
        yield raw


def digest(*parts: str) -> str:
    """128-bit hexadecimal hash of texts, which are kept apart by their lengths."""
    hasher = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        hasher.update(len(data).to_bytes(8, "little") + data)
    return hasher.hexdigest()


def _check(raw: Raw, root: str, spool: Spool) -> Prompt:
    """The row as a Prompt; raises RowError."""
    if raw.error:
        raise RowError("InvalidUtf8" if "UTF-8" in raw.error else "UnreadableRow", f"row {raw.number}: {raw.error}")
    image = _image(raw.values.get("image"), root)
    prompt = _prompt(raw.values.get("prompt"), required=image is None)
    given_id, seed = _given_id(raw.values), _seed(raw.values.get("seed"))
    if seed is None:
        source = given_id or digest(prompt, hashlib.blake2b(image or b"").hexdigest())
        seed = int(digest("seed", source)[:8], 16) & 0x7FFFFFFF
    identity = [prompt, str(seed)] + ([hashlib.blake2b(image, digest_size=16).hexdigest()] if image else [])
    picture = spool.add(image) if image else None
    return Prompt(prompt_id=given_id or digest(*identity), prompt=prompt, seed=seed, picture=picture)


def _prompt(value: Any, required: bool) -> str:
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise RowError("InvalidUtf8", f"prompt is not UTF-8: {error.reason} at byte {error.start}") from error
    if value is not None and not isinstance(value, str):
        raise RowError("InvalidPrompt", f"prompt is a {type(value).__name__}; it must be text")
    prompt = (value or "").strip()
    try:
        num_bytes = len(prompt.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise RowError("InvalidUtf8", f"prompt is not UTF-8: {error.reason} at character {error.start}") from error
    if not prompt and required:
        raise RowError("EmptyPrompt", "prompt is empty; write what to make, or give an image")
    if num_bytes > MAX_PROMPT_BYTES:
        raise RowError("PromptTooLong", f"prompt has {num_bytes} bytes; the limit is {MAX_PROMPT_BYTES}: shorten it")
    if _CONTROL.search(prompt):
        raise RowError("InvalidPrompt", "prompt holds control characters; remove them")
    return prompt


def _given_id(values: dict[str, Any]) -> str | None:
    value = next((values[name] for name in _ID_COLUMNS if values.get(name) not in (None, "")), None)
    if value is None:
        return None
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not ID_PATTERN.fullmatch(text):
        raise RowError(
            "InvalidId",
            f"prompt_id {_short(value)} is not allowed; use 1 to 128 of A-Z a-z 0-9 . _ - after a letter or digit",
        )
    return text


def _seed(value: Any) -> int | None:
    if value is None or value == "":
        return None
    try:
        written = not isinstance(value, str) or _WHOLE.fullmatch(value)
        seed = int(value) if written and (isinstance(value, (str, int)) or float(value).is_integer()) else None
    except (TypeError, ValueError, OverflowError):
        seed = None
    if seed is None or isinstance(value, bool) or not 0 <= seed <= MAX_SEED:
        raise RowError("InvalidSeed", f"seed {_short(value)} is no whole number in [0, {MAX_SEED}]")
    return seed


def _image(value: Any, root: str) -> bytes | None:
    """The encoded bytes of the row's image; a path is read from below `root` only."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if value is None or value in ("", b""):
        return None
    if isinstance(value, str):
        value = _read_image(value, root)
    if not isinstance(value, bytes):
        raise RowError("UnreadableImage", f"image is a {type(value).__name__}; give bytes or a path")
    if len(value) > MAX_IMAGE_BYTES:
        raise RowError("ImageTooLarge", f"image has {len(value)} bytes; the limit is {MAX_IMAGE_BYTES}: shrink it")
    return value


def _read_image(path: str, root: str) -> bytes:
    if "://" in path or "://" in root:
        raise RowError("UnreadableImage", f"image {_short(path)} is an address; put the bytes into the table")
    try:
        folder = Path(root).resolve()
        file = (folder / path).resolve()
        if not file.is_relative_to(folder):
            raise RowError("UnreadableImage", f"image {_short(path)} lies outside {root}; see --image-root")
        if not file.is_file():
            raise RowError("UnreadableImage", f"image {_short(path)} is no file below {root}")
        with file.open("rb") as stream:
            return stream.read(MAX_IMAGE_BYTES + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, RowError):
            raise
        raise RowError("UnreadableImage", f"image {_short(path)}: {error}") from error


def _refuse_repeat(prompt_id: str, number: int, seen: dict[str, int]) -> None:
    if prompt_id in seen:
        message = f"prompt_id {prompt_id!r} repeats row {seen[prompt_id]}; give it its own id or seed"
        raise RowError("DuplicateId", message, prompt_id)
    seen[prompt_id] = number


def _rejected(raw: Raw, error: RowError) -> Rejected:
    """The dead letter of a row, under its own id where it has one, else under a hash of what was read."""
    prompt = raw.values.get("prompt")
    prompt = _clean(prompt) if isinstance(prompt, str) else ""
    given = next((raw.values[name] for name in _ID_COLUMNS if raw.values.get(name) not in (None, "")), None)
    name = error.prompt_id or (digest(prompt, error.kind) if given is None else _clean(_text(given)))
    return Rejected(prompt_id=name, prompt=prompt, error_type=error.kind, error_message=str(error))


def _name_apart(rejected: list[Rejected], seen: dict[str, int]) -> None:
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


def _text(value: Any) -> str:
    """Any value as text; whole numbers of thousands of digits have none in Python."""
    try:
        return str(value)
    except ValueError:
        return f"a {type(value).__name__}"


def _clean(text: str, limit: int = 200) -> str:
    """Printable, bounded text that any table can hold."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= limit else f"{text[:limit]}…{digest(text)[:8]}"


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # a whole number of thousands of digits
        text = f"a {type(value).__name__}"
    text = text if len(text) <= 80 else text[:77] + "..."
    return text.encode("utf-8", "replace").decode("utf-8")
