"""Merge several collections of assets into one table with corrected captions, by `merged`:

    python -m model.pocket.asset_table --collections DIR [DIR ...] --out FILE [--licenses CC0-1.0 MIT-0]

Every collection is a folder with `assets.jsonl` and the files that its rows name. Paths in the new table are relative
to the folder that holds all collections, which is printed: `im3d render --assets FILE --asset-root FOLDER`.
"""

from __future__ import annotations

import json
import os
import re
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
    """Only assets under these licences, as CC0-1.0 or, for all versions, CC0; all without."""


def corrected_captions(captions: Path = CAPTIONS) -> dict[str, str]:
    """The corrected captions by asset id."""
    rows = (json.loads(line) for line in captions.read_text().splitlines())
    return {row["id"]: row["caption"] for row in rows}


def merged(collections: Sequence[Path], root: Path, licenses: Iterable[str] = ()) -> Iterator[Row]:
    """The rows of all collections, their paths relative to `root`, their captions corrected.

    Args:
        collections: folders with `assets.jsonl`.
        root: a folder that holds them all.
        licenses: only rows under these, as "CC0-1.0" or, for all versions, "CC0"; all rows without.

    Raises:
        UserError: when an id occurs twice, or a licence that is asked for is no row's.
    """
    captions, wanted, seen, found = corrected_captions(), tuple(licenses), set(), dict[str, int]()
    for folder in collections:
        for line in (folder / "assets.jsonl").read_text().splitlines():
            row = json.loads(line)
            if row["id"] in seen:
                raise UserError(f"{folder}: id {row['id']} is in another collection too")
            seen.add(row["id"])
            license = row.get("license") or "none"
            found[license] = found.get(license, 0) + 1
            if not wanted or any(_covers(name, license) for name in wanted):
                path = (folder.resolve() / row["path"]).relative_to(root)
                yield row | {"path": path.as_posix(), "caption": captions.get(row["id"], row["caption"])}
    for name in wanted:
        if not any(_covers(name, license) for license in found):
            known = ", ".join(f"{license} ({count})" for license, count in sorted(found.items()))
            raise UserError(f"no asset is under the licence {name}; there are {known}")


def _covers(name: str, license: str) -> bool:
    """Whether `license` is `name` or, where that names no version, a version of it."""
    return license == name or re.fullmatch(re.escape(name) + r"-\d[\w.-]*", license) is not None


def main() -> None:
    """Write the table."""
    arguments = tyro.cli(Arguments)
    root = Path(os.path.commonpath([folder.resolve() for folder in arguments.collections]))
    try:
        rows = list(merged(arguments.collections, root, arguments.licenses))
    except UserError as error:
        sys.exit(f"error: {error}")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    print(f"{len(rows)} assets in {arguments.out}", file=sys.stderr)
    print(root)


if __name__ == "__main__":
    main()
