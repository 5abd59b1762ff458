"""What every page that we write shares: the files of `eval/web`, one escape, one policy."""

from __future__ import annotations

import html
import json
from importlib.resources import files
from typing import Any

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
