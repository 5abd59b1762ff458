"""Say inside an exported file where it comes from: `written_into_ply`, `notes_of`.

Notes are JSON: `prompt`, `seed`, `license`, `models` with revision and licence, and `generator`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

GENERATOR = "im3d-factory"
_PLY_START = b"ply\nformat binary_little_endian 1.0\n"


def notes_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The notes of a row of `factory.ledger.finished_assets.FINISHED`, without what is not known."""
    notes = {name: row[name] for name in ("prompt_id", "prompt", "seed", "license")}
    notes |= {"models": json.loads(row["models"] or "null"), "generator": GENERATOR}
    return {name: value for name, value in notes.items() if value not in (None, "", {})}


def written_into_ply(ply: bytes, notes: Mapping[str, Any]) -> bytes:
    """A binary PLY with the notes as comments, `comment im3d KEY JSON`; the vertices are the same bytes.

    Another header, as of a big-endian file, stays as it is.
    """
    if not ply.startswith(_PLY_START):
        return ply
    lines = [f"comment im3d {name} {json.dumps(value)}\n" for name, value in notes.items()]
    return _PLY_START + "".join(lines).encode("ascii") + ply[len(_PLY_START) :]
