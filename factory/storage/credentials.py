"""Scrub credentials from texts before they are kept or shown: `scrub`."""

from __future__ import annotations

import json
import os
import re
from functools import lru_cache

HIDDEN = "[hidden]"
_WORDS = r"secret|token|passw|signature|credential|api_?key|access_?key|accesskey|authorization"
_NAMES = re.compile(rf"{_WORDS}|key$", re.IGNORECASE)
_MIN_LENGTH = 8
_PATTERNS = [
    (("://",), re.compile(r"(?<=://)[^/\s@'\"]+@"), f"{HIDDEN}@"),  # user and password of an address
    (
        ("=",),
        re.compile(rf"([?&;][\w.%-]*(?:{_WORDS}|\bkey|\bsig)[\w.%-]*=)[^&\s'\"<>]+", re.IGNORECASE),
        rf"\1{HIDDEN}",
    ),
    (("akia", "asia", "aroa"), re.compile(r"\b(?:AKIA|ASIA|AROA)[A-Z0-9]{12,}\b"), HIDDEN),  # AWS keys
    (
        ("hf_", "ghp_", "github_", "sk-", "xox"),
        re.compile(r"\b(?:hf_|ghp_|github_pat_|sk-|xox[abp]-)[\w-]{16,}"),
        HIDDEN,
    ),
    (("bearer", "bas"), re.compile(r"\b(Bearer|Basic)\s+[\w.+/=-]{8,}", re.IGNORECASE), rf"\1 {HIDDEN}"),
    (
        ("aws",),
        re.compile(r"(\b(?:AWS4-HMAC-SHA256|AWS)\s+).*?Signature=[0-9a-f]+", re.IGNORECASE),
        rf"\1{HIDDEN}",
    ),
    (
        ("secret", "ses", "auth"),
        re.compile(r"((?:secret|session|auth)[\w-]*(?:key|token)['\"]?\s*[=:]\s*['\"]?)[^\s'\",}]{6,}", re.IGNORECASE),
        rf"\1{HIDDEN}",
    ),
]
"""One of the words, case folded, is in every text that the pattern matches: most texts are done without a pattern."""


def scrub(text: str) -> str:
    """The text without credentials: those in addresses, AWS keys and signatures, and the values of this process's
    environment variables whose names speak of keys, tokens, secrets or passwords."""
    for value in _environment():
        text = text.replace(value, HIDDEN)
    folded = text.casefold()
    for words, pattern, replacement in _PATTERNS:
        if any(word in folded for word in words):
            text = pattern.sub(replacement, text)
    return text


@lru_cache(maxsize=4096)
def _is_secret(name: str) -> bool:
    return bool(_NAMES.search(name)) and not name.endswith(("_PATH", "_FILE"))


def _environment() -> list[str]:
    """Secret values, as they are and as JSON writes them, longest first.

    A path to a file of secrets is no secret, a short value no use to hide.
    """
    found = {os.environ.get(name, "") for name in filter(_is_secret, os.environ)}
    kept = {value for value in found if len(value) >= _MIN_LENGTH and not value.isspace()}
    return sorted(kept | {json.dumps(value)[1:-1] for value in kept}, key=len, reverse=True)
