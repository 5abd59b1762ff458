"""Make the parts that all our pages share, with one escape and one content policy: `Markup`, `escape`, `table`."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any
from urllib.parse import quote

INLINE_POLICY = (
    "default-src 'none'; img-src 'self' file: data:; media-src 'self' file:; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'"
)
"""Content-Security-Policy of a page in one file: no script runs on it, nothing comes from elsewhere."""


def web_file(name: str) -> str:
    """The text of a file of `eval/web`: styles, scripts, templates."""
    return (files("eval") / "web" / name).read_text(encoding="utf-8")


def escape(value: object) -> str:
    """Text for HTML, in elements and in quoted attributes; None is empty."""
    return "" if value is None else html.escape(str(value))


def script_data(target: str, value: Any) -> str:
    """A script file that sets `target` to `value`: data that a page opened from disk can load, as it can not JSON."""
    return f"{target} = {json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(',', ':'))};\n"


def money(dollars: float) -> str:
    """Dollars with cents, or with two digits that are not zero where they are less than one."""
    if dollars >= 1 or dollars <= 0:
        return f"${dollars:,.2f}"
    return f"${dollars:.{1 - math.floor(math.log10(dollars))}f}"


class Markup(str):
    """HTML that is whole and safe: `table` leaves it as it is."""


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A table that scrolls sideways where it must. Cells are escaped unless they are Markup.

    Args:
        left: how many columns hold text; the others hold numbers.
    """

    body = "\n".join(f"<tr>{_line(row, 'td', left)}</tr>" for row in rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>\n'
        f"<caption>{escape(caption)}</caption>\n<thead><tr>{_line(head, 'th', left)}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody></table></div>\n"
    )


def _line(cells: Sequence[str], tag: str, left: int) -> str:
    texts = [cell if isinstance(cell, Markup) else escape(cell) for cell in cells]
    return "".join(
        f"<{tag}>{text}</{tag}>" if k < left else f'<{tag} class="number">{text}</{tag}>'
        for k, text in enumerate(texts)
    )


def address(*parts: str) -> str:
    """A relative address from keys of a store, each sign quoted that is no part of a path."""
    return "/".join(quote(part, safe="/") for part in parts if part)
