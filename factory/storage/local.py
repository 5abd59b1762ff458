"""Keep files in a folder of this machine: `LocalStore`."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from factory.storage.interface import StorageError, Stored, checked

_TEMPORARY = ".tmp"


class LocalStore:
    """A folder. Writes go to a temporary file, fsync, then rename (put) or link (create)."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)

    def put(self, key: str, data: bytes) -> None:
        """As `Store.put`: a temporary file, fsync, then rename."""
        with _named(self.root):
            target = self._target(key)
            os.replace(self._written(data), target)
            _sync_folder(target.parent)

    def create(self, key: str, data: bytes) -> bool:
        """As `Store.create`: a temporary file, fsync, then a hard link, which fails where the name is taken."""
        with _named(self.root):
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
        import pyarrow.fs

        try:
            return pyarrow.fs.LocalFileSystem().open_input_file(str(Path(self.root, checked(key))))
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
        """As `Store.sweep`: temporary files of writers that were killed."""
        shutil.rmtree(Path(self.root, _TEMPORARY), ignore_errors=True)

    def _target(self, key: str) -> Path:
        target = Path(self.root, checked(key))
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def _written(self, data: bytes) -> str:
        folder = Path(self.root, _TEMPORARY)
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fchmod(stream.fileno(), 0o644)
                os.fsync(stream.fileno())
        except OSError:
            os.unlink(name)  # what a full disk took of it is given back
            raise
        return name


_WAYS_OUT = {
    errno.ENOSPC: "the disk is full: free space, then run the same command again",
    errno.EDQUOT: "the quota is used up: free space, then run the same command again",
    errno.EROFS: "the file system is read-only: choose another folder",
    errno.EACCES: "there is no permission to write: choose another folder, or change its owner",
    errno.EPERM: "there is no permission to write: choose another folder, or change its owner",
    errno.ENOTDIR: "a file is in the way: choose another folder",
}


@contextlib.contextmanager
def _named(root: str) -> Iterator[None]:
    """Errors of a full or closed disk name the folder and the way out."""
    try:
        yield
    except OSError as error:
        if error.errno not in _WAYS_OUT:
            raise
        raise StorageError(f"{root} cannot be written: {_WAYS_OUT[error.errno]}") from error


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
