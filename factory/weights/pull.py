"""Bring public networks into a folder that stages load from, and check what is there: `pull`, `check`."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from factory.storage.interface import StorageConfig
from factory.storage.store import pyarrow_filesystem
from factory.weights.adaptions import APART, adapt
from factory.weights.catalogue import PICKLES, Entry, entry_of
from factory.weights.sources import Listing, download, listed
from recon.user_error import UserError

DIGESTS = "digests.json"
"""Where a folder's files came from, and the size and sha256 of each."""
_CHUNK = 1 << 24


def pull(
    name: str, to: str, *, accept: bool = False, hub: str | None = None, storage: StorageConfig | None = None
) -> str:
    """Download a network of the catalogue into the folder `to`/`name`, or what is still missing of it.

    Args:
        to: a local folder or s3:// address; for the latter the files are made in this machine's cache first.
        accept: that the licence has been read and is accepted, where it is not free for every use or not known.
        hub: address of another hub than huggingface.co.

    Returns:
        Its folder or address.

    Raises:
        UserError: if the name is unknown, the licence is to be accepted first, the source refuses or cannot be reached,
            or a file is not what the source says.
    """
    entry, place = entry_of(name), f"{to.rstrip('/')}/{name}"
    if not problems(place, storage):
        return place
    listing = listed(entry, hub)
    license = listing.license or entry.license
    if not accept and (entry.must_accept or listing.gated):
        raise UserError(f"{entry.source} is under the licence {license or 'unknown'}, which is not free for every use: "
                        f"read it at {entry.page} and pull with --accept-license {name}")  # fmt: skip
    local = Path(place) if "://" not in to else _staging() / hashlib.sha256(place.encode()).hexdigest()[:16] / name
    _make(entry, listing, local)
    _write_digests(entry, listing, local)
    if "://" in to:
        _upload(local, place, storage)
        shutil.rmtree(local.parent)
    return place


def problems(place: str, storage: StorageConfig | None = None) -> list[str]:
    """What is wrong with a pulled folder or address, one sentence each; empty if nothing is. Every byte is read."""
    filesystem, root = pyarrow_filesystem(place, storage)
    there = _files(filesystem, root)
    try:
        recorded = json.loads(_read(filesystem, f"{root}/{DIGESTS}"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return [f"{place} has no {DIGESTS} that can be read; it is no pulled folder, or its download was cut off: "
                "pull again"]  # fmt: skip
    found = []
    for name, record in recorded.items():
        if name not in there:
            found.append(f"{name} is missing: pull again")
        elif there[name] != record["size"]:
            found.append(f"{name} has {there[name]} bytes instead of {record['size']}: pull again")
        elif _digest(filesystem, f"{root}/{name}") != record["sha256"]:
            found.append(f"{name} is not what was pulled: pull again")
    pickles = [name for name in there if name.endswith(PICKLES)]
    return found + [f"{name} is a pickle, which is never read: delete it" for name in pickles]


def sizes_that_differ(folder: Path) -> list[str]:
    """What is missing of a local pulled folder or has another size, one clause each, without reading its files.

    A folder without digests was not pulled, and nothing is known of it.
    """
    listed = _record(folder).get("files", {})
    there = {name: folder / name for name in listed}
    return [
        f"{name} has {file.stat().st_size} bytes instead of {listed[name]['size']}" if file.is_file()
        else f"{name} is missing"
        for name, file in there.items() if not file.is_file() or file.stat().st_size != listed[name]["size"]
    ]  # fmt: skip


def license_at(place: str, storage: StorageConfig | None = None) -> str:
    """What a pulled folder's digests say of its licence."""
    filesystem, root = pyarrow_filesystem(place, storage)
    return json.loads(_read(filesystem, f"{root}/{DIGESTS}"))["license"]


def check(folder: str, storage: StorageConfig | None = None) -> dict[str, list[str]]:
    """By name, the `problems` of every network in a folder of pulled ones, or of one alone.

    Raises:
        UserError: if there is none.
    """
    filesystem, root = pyarrow_filesystem(folder.rstrip("/"), storage)
    inside = _files(filesystem, root)
    if DIGESTS in inside:
        return {root.rpartition("/")[2]: problems(folder, storage)}
    names = sorted({name.partition("/")[0] for name in inside if "/" in name})
    names = [name for name in names if not name.endswith(".download")]
    if not names:
        raise UserError(f"{folder} holds no networks: im3d weights pull --preset paper --to {folder}")
    return {name: problems(f"{folder.rstrip('/')}/{name}", storage) for name in names}


def _make(entry: Entry, listing: Listing, target: Path) -> None:
    """Download, compare with what the source says, adapt."""
    raw = target.with_name(f"{target.name}.download") if entry.adapt in APART else target
    download(entry, raw, listing.files)
    for file in listing.files:
        place = raw / file.name
        if (file.size and place.stat().st_size != file.size) or (file.sha256 and _local_digest(place) != file.sha256):
            place.unlink()
            raise UserError(f"{file.name} of {entry.source} is not what the source says, and was deleted: "
                            "pull again")  # fmt: skip
    adapt(entry, raw, target)
    if raw != target:
        shutil.rmtree(raw, ignore_errors=True)


def license_in(folder: Path) -> str | None:
    """The licence of a local network: as its card states it, else as it was when the network was pulled."""
    from model.weights import license_of

    stated = license_of(folder)
    known = _record(folder).get("license", "unknown") if stated == "unknown" else stated
    return None if known == "unknown" else known


def _record(folder: Path) -> dict[str, Any]:
    """What was written down when a local folder was pulled; empty where it was not, or the file is damaged."""
    try:
        found = json.loads((folder / DIGESTS).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write_digests(entry: Entry, listing: Listing, target: Path) -> None:
    from model.weights import license_of

    files = sorted(path for path in target.rglob("*") if path.is_file() and path.name != DIGESTS)
    license = license_of(target)
    record = {
        "source": entry.source, "revision": listing.revision,
        "license": license if license != "unknown" else listing.license or entry.license or "unknown",
        "files": {path.relative_to(target).as_posix(): {"size": path.stat().st_size, "sha256": _local_digest(path)}
                  for path in files},
    }  # fmt: skip
    (target / DIGESTS).write_text(json.dumps(record, indent=2))


def _upload(local: Path, place: str, storage: StorageConfig | None) -> None:
    """Copy files that the address lacks; the digests come last, so that what was cut off is seen as such."""
    from pyarrow import fs

    filesystem, root = pyarrow_filesystem(place, storage)
    there, source = _files(filesystem, root), fs.LocalFileSystem()
    files = sorted((p for p in local.rglob("*") if p.is_file()), key=lambda path: path.name == DIGESTS)
    for path in files:
        name = path.relative_to(local).as_posix()
        same = there.get(name) == path.stat().st_size and _digest(filesystem, f"{root}/{name}") == _local_digest(path)
        if not same:
            fs.copy_files(str(path), f"{root}/{name}", source, filesystem)


def _staging() -> Path:
    from model.digests import CACHE

    return CACHE / "pulled"


def _files(filesystem: Any, root: str) -> dict[str, int]:
    """Sizes by name of what lies below a folder."""
    from pyarrow import fs

    chosen = fs.FileSelector(root, recursive=True, allow_not_found=True)
    infos = [info for info in filesystem.get_file_info(chosen) if info.is_file]
    return {info.path.removeprefix(f"{root}/"): info.size for info in sorted(infos, key=lambda info: info.path)}


def _read(filesystem: Any, path: str) -> bytes:
    with filesystem.open_input_stream(path) as stream:
        return stream.read()


def _digest(filesystem: Any, path: str) -> str:
    value = hashlib.sha256()
    with filesystem.open_input_stream(path) as stream:
        for chunk in _chunks(stream):
            value.update(chunk)
    return value.hexdigest()


def _local_digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _chunks(stream: Any) -> Iterator[bytes]:
    while chunk := stream.read(_CHUNK):
        yield chunk
