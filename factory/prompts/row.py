"""Check one row of a table of prompts, its id, seed and picture: `check_row`."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

from factory.ledger.keys import ID_PATTERN, digest
from factory.prompts.raw_rows import Raw
from factory.prompts.row_error import RowError, short
from factory.prompts.row_images import RowImages
from factory.prompts.spool import Spool, Spooled

MAX_PROMPT_BYTES = 4096
MAX_SEED = 2**63 - 1
MAX_METRES = 1e6
ID_COLUMNS = ("prompt_id", "id")
COLUMNS = ("prompt", *ID_COLUMNS, "seed", "image", "size_metres")
"""What is read of a table; nothing else is looked at."""
_WHOLE = re.compile(r"\s*\+?([0-9]+)(\.0*)?\s*", re.ASCII)
"""Also as pandas writes a column with gaps: 7.0."""
CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"
"""Characters that no prompt may hold."""


@dataclass(kw_only=True, slots=True)
class Prompt:
    """One job for the line."""

    prompt_id: str
    prompt: str
    seed: int
    picture: Spooled | None = None
    size_metres: float | None = None
    """The object's longest side, for exports; changes nothing of how it is made."""

    @property
    def image(self) -> bytes | None:
        """The encoded picture (PNG, JPEG, WebP) to start from, read from disk; None without one."""
        return self.picture.read() if self.picture else None


def check_row(raw: Raw, images: RowImages, spool: Spool) -> Prompt:
    """The row as a Prompt, its picture put into `spool`; what `image` names is read by `images`.

    Raises:
        RowError: for anything in it that cannot be used.
    """
    if raw.error:
        raise RowError("InvalidUtf8" if "UTF-8" in raw.error else "UnreadableRow", f"row {raw.number}: {raw.error}")
    image = images.read(raw.values.get("image"))
    prompt = _prompt(raw.values.get("prompt"), required=image is None)
    name, seed = _checked_id(raw.values), _seed(raw.values.get("seed"))
    size = _size(raw.values.get("size_metres"))
    if seed is None:
        seed = seed_of(name or digest(prompt, hashlib.blake2b(image or b"").hexdigest()))
    identity = [prompt, str(seed)] + ([hashlib.blake2b(image, digest_size=16).hexdigest()] if image else [])
    picture = spool.add(image) if image else None
    return Prompt(prompt_id=name or digest(*identity), prompt=prompt, seed=seed, picture=picture, size_metres=size)


def seed_of(name: str) -> int:
    """The seed of a row that gives none, by its id or what stands for one; in [0, 2^31)."""
    return int(digest("seed", name)[:8], 16) & 0x7FFFFFFF


def _prompt(value: Any, required: bool) -> str:
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise RowError("InvalidUtf8", f"prompt is not UTF-8: {error.reason} at byte {error.start}") from error
    if value is not None and not isinstance(value, str):
        raise RowError("InvalidPrompt", f"prompt is of type {type(value).__name__}; it must be text")
    prompt = (value or "").strip()
    try:
        num_bytes = len(prompt.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise RowError("InvalidUtf8", f"prompt is not UTF-8: {error.reason} at character {error.start}") from error
    if not prompt and required:
        raise RowError("EmptyPrompt", "prompt is empty; write what to make, or give an image")
    if num_bytes > MAX_PROMPT_BYTES:
        raise RowError("PromptTooLong", f"prompt has {num_bytes} bytes; the limit is {MAX_PROMPT_BYTES}: shorten it")
    if re.search(CONTROL, prompt):
        raise RowError("InvalidPrompt", "prompt holds control characters; remove them")
    return prompt


def given_id(values: dict[str, Any]) -> Any:
    """What a row gives as its id, unchecked; None where it gives none, as pandas' NaN."""
    return next((values[name] for name in ID_COLUMNS if not _is_empty(values.get(name))), None)


def _is_empty(value: Any) -> bool:
    return value is None or value in ("", b"") or (isinstance(value, float) and math.isnan(value))


def id_text(value: Any) -> str | None:
    """An id as text: whole numbers without a decimal point, UUIDs, text and UTF-8 bytes; None for any other value.

    Raises:
        UnicodeDecodeError: for other bytes.
    """
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value):
        value = int(value)
    whole = isinstance(value, int) and not isinstance(value, bool)
    return str(value) if whole or isinstance(value, UUID) else value if isinstance(value, str) else None


def _checked_id(values: dict[str, Any]) -> str | None:
    value = given_id(values)
    if value is None:
        return None
    try:
        text = id_text(value)
    except UnicodeDecodeError as error:
        raise RowError("InvalidUtf8", f"prompt_id {short(value)} is not UTF-8: {error.reason}") from error
    except ValueError:  # a whole number of thousands of digits
        text = None
    if text is None or not ID_PATTERN.fullmatch(text):
        raise RowError(
            "InvalidId",
            f"prompt_id {short(value)} is not allowed; use 1 to 128 of A-Z a-z 0-9 . _ - after a letter or digit",
        )
    return text


def _seed(value: Any) -> int | None:
    if value is None or value == "":
        return None
    try:
        if isinstance(value, str):
            written = _WHOLE.fullmatch(value)
            seed = int(written[1]) if written else None
        else:
            seed = int(value) if isinstance(value, int) or float(value).is_integer() else None
    except (TypeError, ValueError, OverflowError):
        seed = None
    if seed is None or isinstance(value, bool) or not 0 <= seed <= MAX_SEED:
        raise RowError("InvalidSeed", f"seed {short(value)} is no whole number in [0, {MAX_SEED}]")
    return seed


def _size(value: Any) -> float | None:
    if value is None or value == "" or value != value:  # NaN, as pandas has it for gaps
        return None
    try:
        size = float(value)
    except (TypeError, ValueError, OverflowError):
        size = 0.0
    if isinstance(value, bool) or not 0 < size <= MAX_METRES:
        raise RowError("InvalidSize", f"size_metres {short(value)} is no length in (0, {MAX_METRES:g}] metres")
    return size


def text_of(value: Any) -> str:
    """Any value as text; whole numbers of thousands of digits have none in Python."""
    try:
        return str(value)
    except ValueError:
        return f"a {type(value).__name__}"


def clean(text: str, limit: int = 200) -> str:
    """Printable, bounded text that any table can hold."""
    text = text.encode("utf-8", "replace").decode("utf-8")
    return text if len(text) <= limit else f"{text[:limit]}…{digest(text)[:8]}"
