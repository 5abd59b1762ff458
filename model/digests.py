"""Tell which weights a folder holds by a digest over its safetensors, remembered on the machine: `revision_of`."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path

from recon.user_error import UserError

CACHE = Path(os.environ.get("IM3D_CACHE") or Path.home() / ".cache" / "im3d-factory")
_LARGE = 1 << 24
"""Bytes from which on a file's digest is remembered; smaller ones are read faster than looked up."""


def revision_of(folder: Path) -> str:
    """The hub commit of a snapshot, else the sha256 over all safetensors of `folder`.

    Raises:
        UserError: if there are none, as in a folder of pickled checkpoints.
    """
    if folder.parent.name == "snapshots":
        return folder.name
    files = sorted(folder.rglob("*.safetensors"))
    if not files:
        raise UserError(f"{folder} has no *.safetensors; pickled weights are not read: convert them to safetensors")
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(folder).as_posix()}\n".encode())
        digest.update(bytes.fromhex(file_digest(file)))
    return f"sha256:{digest.hexdigest()}"


def file_digest(file: Path) -> str:
    """The sha256 of a file in hexadecimal; a large file's is remembered while its size and time stay the same."""
    stat = file.stat()
    seen = [stat.st_size, stat.st_mtime_ns]
    note = CACHE / "digests" / f"{hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:24]}.json"
    if stat.st_size >= _LARGE and (known := _read(note)) and known.get("seen") == seen:
        return known["sha256"]
    with file.open("rb") as stream:
        value = hashlib.file_digest(stream, "sha256").hexdigest()
    if stat.st_size >= _LARGE:
        _write(note, json.dumps({"seen": seen, "sha256": value}))
    return value


def _read(note: Path) -> dict | None:
    try:
        known = json.loads(note.read_text())
    except (OSError, ValueError):
        return None
    return known if isinstance(known, dict) and isinstance(known.get("sha256"), str) else None


def _write(note: Path, text: str) -> None:
    """Whole or not at all; a cache that cannot be written to is done without."""
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=note.parent)
        with os.fdopen(handle, "w") as stream:
            stream.write(text)
        os.replace(name, note)
    except OSError:
        return
