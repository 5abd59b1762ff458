"""Refuse output folders of a later version: `check_format`; `write_format` marks ours."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version

from factory.storage.interface import ReadableStore, Store
from recon.user_error import UserError

FORMAT = 1
"""Rises when an older version could misread a folder; folders without the file are of format 1."""
FILE = "format.json"


def check_format(store: ReadableStore) -> None:
    """Raise UserError for a folder of a later format than ours, or whose `format.json` cannot be read."""
    try:
        found = json.loads(store.get(FILE))
        number, written_by = int(found["format"]), str(found.get("version"))
    except KeyError:
        return
    except (ValueError, TypeError) as error:
        raise UserError(f"{store.root}/{FILE} cannot be read ({error}); restore it, or remove it if no later "
                        "version of im3d-factory wrote the folder") from error  # fmt: skip
    if number > FORMAT:
        raise UserError(f"{store.root} was written by im3d-factory {written_by} in folder format {number}; this is "
                        f"version {_version()}, which reads up to {FORMAT}: update im3d-factory")  # fmt: skip


def write_format(store: Store) -> None:
    """Mark a folder with our format, where it is not marked."""
    store.create(FILE, json.dumps({"format": FORMAT, "version": _version()}).encode())


def _version() -> str:
    try:
        return version("im3d-factory")
    except PackageNotFoundError:
        return "of a source tree"
