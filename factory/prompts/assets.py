"""Read a table of assets and their meshes: `read_assets`, `read_asset`, `read_mesh`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from factory.ledger.keys import ID_PATTERN, digest
from factory.prompts.input_formats import read_rows
from factory.prompts.raw_rows import Raw
from factory.prompts.row import given_id, id_text
from factory.storage.interface import StorageConfig, StorageError
from factory.storage.store import pyarrow_filesystem
from recon.user_error import UserError

if TYPE_CHECKING:
    from recon.meshes.mesh import Mesh

Row = dict[str, Any]

VALIDATION_PERCENT = 8
_TEXTS = ("caption", "license", "source", "split")


def read_assets(
    uri: str, limit: int | None = None, split: str | None = None, storage: StorageConfig | None = None
) -> list[Row]:
    """The assets of a table, checked.

    Args:
        uri: csv, jsonl or parquet with columns `path` and `caption`, and optionally `id`, `license`, `source`, `split`.
        limit: only the first assets, > 0.
        split: only assets of this split, see `split_of`.
        storage: how s3:// is reached.

    Returns:
        Rows with the columns of ASSET_LINE but `turntable_id`; an unusable row carries its reason as `error`.

    Raises:
        ValueError: when the table is missing, empty, without a `path` column, or an id repeats.
    """
    rows, seen = [], set()
    for raw in read_rows(uri, "path", storage):
        if limit is not None and len(rows) >= limit:
            break
        row = _asset(raw)
        if split is not None and split_of_asset(row) != split:
            continue
        if row["asset_id"] in seen:
            raise UserError(f"{uri}: row {raw.number}: id {row['asset_id']!r} repeats; give each asset its own")
        seen.add(row["asset_id"])
        rows.append(row)
    if not rows:
        raise UserError(f"{uri}: no assets" + (f" of split {split!r}" if split else ""))
    if all(row["path"] is None for row in rows):
        raise UserError(f"{uri}: no column 'path' with the meshes' files")
    return rows


def _asset(raw: Raw) -> Row:
    values = {name: raw.values.get(name) for name in ("id", "path", *_TEXTS)}
    path = values["path"] if isinstance(values["path"], str) and values["path"] else None
    given = _given(values["id"])
    error = raw.error or (f"row {raw.number}: no path" if path is None else None)
    if given is not None and not ID_PATTERN.fullmatch(given):
        error = error or f"id {given[:80]!r} is not allowed; use 1 to 128 of A-Z a-z 0-9 . _ -"
        given = None
    stem = PurePosixPath(path or "").stem
    name = given or (stem if ID_PATTERN.fullmatch(stem) else digest(str(path), str(raw.number)))
    texts = {column: None if values[column] is None else str(values[column]) for column in _TEXTS}
    return {"asset_id": name, "path": path, "error": error} | texts


def _given(value: Any) -> str | None:
    """What a row gives as its id, as text; None where it gives none."""
    value = given_id({"id": value})
    try:
        return None if value is None else id_text(value) or str(value)
    except ValueError:  # bytes that are no UTF-8, or a whole number of thousands of digits
        return repr(value)[:80] if isinstance(value, bytes) else "a number of thousands of digits"


def split_of(asset_id: str, given: str | None = None) -> str:
    """ "train" or "val": as the table says, else by hash of the asset's id."""
    if given:
        return given
    digest = hashlib.sha256(asset_id.encode()).digest()
    return "val" if int.from_bytes(digest[:8], "big") % 100 < VALIDATION_PERCENT else "train"


def split_of_asset(asset: Row) -> str:
    """`split_of` a row of `read_assets`."""
    return split_of(asset["asset_id"], asset.get("split"))


def read_asset(path: str, root: str, storage: StorageConfig | None = None) -> bytes:
    """A mesh's bytes; `path` is relative to `root` and may not leave it.

    Raises:
        ValueError: when it leaves the folder, is missing or is too large to be a mesh.
        StorageError: when the storage fails.
    """
    from recon.meshes.load import MAX_FILE_BYTES

    parts = PurePosixPath(path).parts
    if "://" in path or ".." in parts or path.startswith("/") or "\0" in path:
        raise ValueError(f"path {path[:200]!r} leaves the assets' folder; keep meshes below it or see --asset-root")
    filesystem, place = pyarrow_filesystem(f"{root.rstrip('/')}/{path}", storage)
    try:
        with filesystem.open_input_file(place) as stream:
            if stream.size() > MAX_FILE_BYTES:
                raise ValueError(f"asset has {stream.size()} bytes; the limit is {MAX_FILE_BYTES}: decimate it first")
            return stream.read()
    except FileNotFoundError as error:
        raise ValueError(f"no file {path!r} in the assets' folder") from error
    except OSError as error:
        raise StorageError(f"cannot read {path!r} in the assets' folder: {error}") from error


def beside(path: str, root: str, read: Callable[[str], bytes]) -> Callable[[str], bytes]:
    """Reads files by their names relative to the folder of the file at `path`, as `load_mesh` wants its `opener`.

    Args:
        path: of the model, relative to `root`, a local folder or an s3:// address. Links that lead out of the model's
            folder are not followed.
        read: the bytes of a file by its path relative to `root`.
    """
    folder = PurePosixPath(path).parent

    def read_beside(name: str) -> bytes:
        if "://" not in root:
            own = Path(root, folder).resolve()
            if not (own / name).resolve().is_relative_to(own):
                raise ValueError(f"{name[:120]!r} is a link out of the model's folder; put the file itself beside it")
        return read(str(folder / name))

    return read_beside


def read_mesh(path: str, root: str, storage: StorageConfig | None = None) -> Mesh:
    """An asset's mesh with the files beside it, see `read_asset`; ValueError for one that cannot be used."""
    from recon.meshes.load import load_mesh

    opener = beside(path, root, lambda name: read_asset(name, root, storage))
    return load_mesh(read_asset(path, root, storage), PurePosixPath(path).suffix.lstrip("."), opener=opener)
