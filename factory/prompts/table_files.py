"""Find the files of a table: one file, a folder of shards, or a pattern: `table_files`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import pyarrow.fs

from factory.storage.credentials import scrub
from factory.storage.interface import StorageConfig
from factory.storage.store import pyarrow_filesystem
from recon.user_error import UserError

FORMATS = ("txt", "csv", "tsv", "jsonl", "parquet", "arrow")
PACKINGS = {"gz": "gzip", "zst": "zstd"}
"""Compressions of text formats, by suffix."""
LFS_POINTER = b"version https://git-lfs"
"""First bytes of what Git leaves in place of a large file that was not fetched."""
_COLUMNAR = ("parquet", "arrow")
_NULL = "__HIVE_DEFAULT_PARTITION__"
_KNOWN = f"{', '.join(FORMATS)}, text also as .gz or .zst; a folder of them, or a pattern as 'DIR/part-*.parquet'"
_LAKES = {  # what is in such a folder, and what it is
    r"_delta_log/": ("a Delta table", "ray.data.read_delta"),
    r"(.*\.lance/)?_versions/": ("a Lance data set", "ray.data.read_lance"),
    r"metadata/.*\.metadata\.json": ("an Iceberg table", "ray.data.read_iceberg"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class TableFile:
    """One file of rows."""

    uri: str
    """What it is called in errors."""
    filesystem: Any
    path: str
    kind: str
    """One of `FORMATS`."""
    packing: str = ""
    """A value of `PACKINGS`, or none."""
    partitions: dict[str, str | None] = field(default_factory=dict)
    """Columns from the names of its folders, as year=2026."""


def table_files(uri: str, storage: StorageConfig | None = None) -> list[TableFile]:
    """The files of a table, in the order of their names.

    Of a folder, those of one format are read, however deep they lie; names that begin with `_` or `.` are passed over,
    and texts beside another format. Folders that HF `datasets` wrote are folders of shards too.

    Args:
        uri: local path or s3:// address of a file, a folder, or a pattern with `*`, `**` and `?`.

    Raises:
        UserError: where there is no such file, or it is of no format of `FORMATS`.
    """
    filesystem, path = pyarrow_filesystem(uri, storage)
    path = path.rstrip("/") if path.strip("/") else path
    try:
        found = filesystem.get_file_info(path)
        if found.type == pyarrow.fs.FileType.Directory:
            return _of_folder(uri, filesystem, path)
        if found.type == pyarrow.fs.FileType.NotFound and re.search(r"[*?]", path):
            return _of_pattern(uri, filesystem, path)
    except OSError as error:
        raise UserError(f"{uri}: cannot be read: {scrub(str(error))}") from error
    kind, packing = _kind_of(path)
    if kind is None:
        raise UserError(f"{uri}: format {path.rpartition('.')[2]!r} is not supported. Available: {_KNOWN}")
    if found.type == pyarrow.fs.FileType.NotFound:
        raise UserError(f"{uri}: no such file; give a file of {_KNOWN}")
    return [TableFile(uri=uri, filesystem=filesystem, path=path, kind=kind, packing=packing)]


def table_root(uri: str) -> str:
    """The folder that paths in a table are relative to: that of the file, the folder itself, that of a pattern."""
    if wildcard := re.search(r"[*?]", uri):
        return uri[: wildcard.start()].rpartition("/")[0] or "."
    if _kind_of(uri)[0] is None or ("://" not in uri and os.path.isdir(uri)):
        return uri.rstrip("/") or "/"
    return uri.rpartition("/")[0] or "."


def _kind_of(path: str) -> tuple[str | None, str]:
    """The format of a file by its name, or None; and its packing."""
    parts = path.rpartition("/")[2].lower().split(".")
    packing = PACKINGS.get(parts[-1], "") if len(parts) > 2 else ""
    kind = parts[-2] if packing else parts[-1] if len(parts) > 1 else ""
    known = kind in FORMATS and not (packing and kind in _COLUMNAR)
    return (kind if known else None), packing


def _of_folder(uri: str, filesystem: Any, path: str) -> list[TableFile]:
    names = _names(filesystem, path)
    for pattern, (what, reader) in _LAKES.items():
        if any(re.match(pattern, name) for name in names):
            raise UserError(f"{uri} is {what}; write its rows as parquet files: python -c \"import ray; "
                            f"{reader}('IN').write_parquet('OUT')\"")  # fmt: skip
    files = _shards(uri, filesystem, path, (name for name in names if not _is_aside(name)))
    kinds = {file.kind for file in files}
    kinds = kinds - {"txt"} or kinds
    if not kinds:
        raise UserError(f"{uri}: the folder holds no table; give {_KNOWN}")
    if len(kinds) > 1:
        one = sorted(kinds)[-1]
        raise UserError(f"{uri} holds files of {', '.join(sorted(kinds))}; name those that are meant, as {uri}/*.{one}")
    return [file for file in files if file.kind in kinds]


def _of_pattern(uri: str, filesystem: Any, path: str) -> list[TableFile]:
    base = path[: re.search(r"[*?]", path).start()].rpartition("/")[0]  # type: ignore[union-attr]
    base = base or ("/" if path.startswith("/") else ".")
    inside = path.removeprefix(f"{base.rstrip('/')}/")
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    form = re.sub(r"\*\*/|\*\*|\*|\?|[^*?]+", lambda part: words.get(part[0], re.escape(part[0])), inside)
    files = _shards(uri, filesystem, base, (name for name in _names(filesystem, base) if re.fullmatch(form, name)))
    if not files:
        raise UserError(f"{uri}: no table has such a name; give {_KNOWN}")
    return files


def _names(filesystem: Any, path: str) -> list[str]:
    """The files below a folder, relative to it, sorted."""
    found = filesystem.get_file_info(pyarrow.fs.FileSelector(path, recursive=True, allow_not_found=True))
    files = (entry for entry in found if entry.type == pyarrow.fs.FileType.File)
    return sorted(entry.path.removeprefix(path).lstrip("/") for entry in files)


def _is_aside(name: str) -> bool:
    """Whether a file is no shard: bookkeeping of Spark, of a file system, or of HF `datasets`."""
    return any(part.startswith(("_", ".")) for part in name.split("/")) or name.rpartition("/")[2].startswith("cache-")


def _shards(uri: str, filesystem: Any, path: str, names: Iterable[str]) -> list[TableFile]:
    found, kept = list[TableFile](), list(names)
    splits = "dataset_dict.json" in kept
    is_pattern = bool(re.search(r"[*?]", uri))
    root = path if is_pattern else uri.rstrip("/")
    for name in kept:
        kind, packing = _kind_of(name)
        if kind is None:
            continue
        folders = name.split("/")[:-1]
        parts = [*path.split("/"), *folders] if is_pattern else folders
        pairs = dict(part.split("=", 1) for part in parts if "=" in part)
        partitions = {unquote(key): None if value == _NULL else unquote(value) for key, value in pairs.items()}
        if splits and folders:
            partitions |= {"split": folders[0]}
        known = {"filesystem": filesystem, "path": f"{path.rstrip('/')}/{name}", "kind": kind, "packing": packing}
        found.append(TableFile(uri=f"{root}/{name}", partitions=partitions, **known))
    return found
