"""Open where bytes go, a folder on local disk or under s3://: `open_store`. Keys are relative, writes atomic."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from factory.storage.interface import StorageConfig, Store, Stored, checked
from factory.storage.user_error import UserError

_TEMPORARY = ".tmp"


def open_store(url: str, config: StorageConfig | None = None) -> Store:
    """The store of a local path or an s3://bucket/prefix address.

    Raises:
        ValueError: for any other scheme, or an address that holds credentials.
    """
    if url.startswith("s3://"):
        from factory.storage.s3 import S3Store

        return S3Store(url, config or StorageConfig())
    if "://" in url:
        raise UserError(f"{url}: scheme not supported. Available: a local path, s3://bucket/prefix")
    return LocalStore(url)


def read_json(store: Store, key: str) -> dict[str, Any] | None:
    """The JSON object under a key; None where nothing is.

    Raises:
        ValueError: when there is something else.
    """
    try:
        found = json.loads(store.get(key))
    except KeyError:
        return None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{store.root}/{key} holds no JSON object; restore it, or name another folder")
    return found


def pyarrow_filesystem(uri: str, config: StorageConfig | None = None) -> tuple[Any, str]:
    """The pyarrow file system of a local path or s3:// address, and the path in it.

    Raises:
        ValueError: for any other scheme, or an address that holds credentials.
    """
    import pyarrow.fs

    if "://" not in uri:
        return pyarrow.fs.LocalFileSystem(), uri
    if not uri.startswith("s3://"):
        raise UserError(f"{uri}: scheme not supported. Available: a local path, s3://bucket/key")
    from factory.storage.s3 import arrow_filesystem, split

    bucket, key = split(uri)
    return arrow_filesystem(bucket, config or StorageConfig()), f"{bucket}/{key}"


class LocalStore:
    """A folder. Writes go to a temporary file, fsync, then rename (put) or link (create)."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)

    def put(self, key: str, data: bytes) -> None:
        target = self._target(key)
        os.replace(self._written(data), target)
        _sync_folder(target.parent)

    def create(self, key: str, data: bytes) -> bool:
        target = self._target(key)
        source = self._written(data)
        try:
            os.link(source, target)
        except FileExistsError:
            return False
        finally:
            os.unlink(source)
        _sync_folder(target.parent)
        return True

    def get(self, key: str) -> bytes:
        try:
            return Path(self.root, checked(key)).read_bytes()
        except (FileNotFoundError, IsADirectoryError) as error:
            raise KeyError(key) from error

    def open(self, key: str) -> Any:
        filesystem, path = pyarrow_filesystem(str(Path(self.root, checked(key))))
        try:
            return filesystem.open_input_file(path)
        except (FileNotFoundError, IsADirectoryError) as error:
            raise KeyError(key) from error

    def keys(self, prefix: str) -> Iterator[str]:
        folder = Path(self.root, checked(prefix.rstrip("/")))
        found = (Path(base, name) for base, _, names in os.walk(folder) for name in names)
        yield from sorted(path.relative_to(self.root).as_posix() for path in found)

    def objects(self, prefix: str) -> Iterator[Stored]:
        for key in self.keys(prefix):
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(Path(self.root, key))
                yield Stored(key=key, size=status.st_size, modified=status.st_mtime)

    def delete(self, key: str) -> None:
        Path(self.root, checked(key)).unlink(missing_ok=True)

    def sweep(self) -> None:
        shutil.rmtree(Path(self.root, _TEMPORARY), ignore_errors=True)

    def _target(self, key: str) -> Path:
        target = Path(self.root, checked(key))
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def _written(self, data: bytes) -> str:
        folder = Path(self.root, _TEMPORARY)
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder)
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchmod(stream.fileno(), 0o644)
            os.fsync(stream.fileno())
        return name


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
