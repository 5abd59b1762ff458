"""Merge several collections of assets into one table with corrected captions, by `merged`:

    python -m model.pocket.asset_table --collections DIR [DIR ...] --out FILE [--licenses CC0-1.0 MIT-0]

Every collection is a folder with `assets.jsonl` and the files that its rows name. Paths in the new table are relative
to the folder that holds all collections, which is printed: `im3d render --assets FILE --asset-root FOLDER`.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from recon.user_error import UserError

CAPTIONS = Path(__file__).parent / "captions.jsonl"
"""Captions, by asset id, that replace the collections' own: found wrong, unclear or ungrammatical on reading them."""
Row = dict[str, Any]


@dataclass(kw_only=True, slots=True)
class Arguments:
    """Merge collections of assets into one table."""

    collections: tuple[Path, ...]
    """Folders with assets.jsonl."""
    out: Path
    """The new table."""
    licenses: tuple[str, ...] = ()
    """Only assets under these licences; all without."""


def corrected_captions(captions: Path = CAPTIONS) -> dict[str, str]:
    """The corrected captions by asset id."""
    rows = (json.loads(line) for line in captions.read_text().splitlines())
    return {row["id"]: row["caption"] for row in rows}


def merged(collections: Sequence[Path], root: Path, licenses: Iterable[str] = ()) -> Iterator[Row]:
    """The rows of all collections, their paths relative to `root`, their captions corrected.

    Raises:
        UserError: when an id occurs twice.
    """
    captions, allowed, seen = corrected_captions(), set(licenses), set()
    for folder in collections:
        for line in (folder / "assets.jsonl").read_text().splitlines():
            row = json.loads(line)
            if row["id"] in seen:
                raise UserError(f"{folder}: id {row['id']} is in another collection too")
            seen.add(row["id"])
            if not allowed or row.get("license") in allowed:
                path = (folder.resolve() / row["path"]).relative_to(root)
                yield row | {"path": path.as_posix(), "caption": captions.get(row["id"], row["caption"])}


def main() -> None:
    """Write the table."""
    arguments = tyro.cli(Arguments)
    root = Path(os.path.commonpath([folder.resolve() for folder in arguments.collections]))
    rows = list(merged(arguments.collections, root, arguments.licenses))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    print(f"{len(rows)} assets in {arguments.out}", file=sys.stderr)
    print(root)


if __name__ == "__main__":
    main()
