"""Where bytes go: one folder on local disk or under s3://, written atomically, addressed by relative keys.

A key is seen wholly or not at all. `create` is the only way two writers may meet: one of them wins.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

_TEMPORARY = ".tmp"


@dataclass(kw_only=True, slots=True)
class StorageConfig:
    """How s3:// is reached; never changes what is made. What is None is left to the AWS environment and profile."""

    endpoint: str | None = None
    """Address of another S3-compatible server, as http://host:9000; None: AWS_ENDPOINT_URL, else AWS."""
    region: str | None = None
    """Region of the buckets."""
    anonymous: bool = False
    """Send unsigned requests, for public buckets."""
    role_arn: str | None = None
    """Role to assume with the credentials at hand, renewed before they expire."""
    part_mb: int = 16
    """Larger files go up in parts of this many MiB, in [5, 1024]."""
    timeout_seconds: float = 60.0
    """Longest silence of the server, in (0, 3600]; a body slower than a part in this time counts as a failure too."""
    attempts: int = 8
    """Tries of a request that fails for a passing reason (500, 503, time-out, broken connection), in [1, 100]."""

    def __post_init__(self) -> None:
        if self.endpoint and (not self.endpoint.startswith(("http://", "https://")) or "@" in self.endpoint):
            raise ValueError("storage.endpoint must be http:// or https:// without user name and password")
        if self.anonymous and self.role_arn:
            raise ValueError("storage.anonymous and storage.role_arn exclude each other; give one of them")
        if not 5 <= self.part_mb <= 1024:
            raise ValueError(f"storage.part_mb is {self.part_mb}; it must lie in [5, 1024]")
        if not 0 < self.timeout_seconds <= 3600:
            raise ValueError(f"storage.timeout_seconds is {self.timeout_seconds}; it must lie in (0, 3600]")
        if not 1 <= self.attempts <= 100:
            raise ValueError(f"storage.attempts is {self.attempts}; it must lie in [1, 100]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """One object as a listing shows it."""

    key: str
    size: int
    """Bytes."""
    modified: float
    """Seconds since the epoch."""


class StorageError(OSError):
    """The storage did not do what was asked, and trying again did not help; holds no credentials."""


class Store(Protocol):
    """What the line needs of a place for files. Every method raises OSError when the place fails."""

    root: str

    def put(self, key: str, data: bytes) -> None:
        """Write or replace one object, durably."""
        ...

    def create(self, key: str, data: bytes) -> bool:
        """Write one object unless it exists; False when it did, and then nothing has changed."""
        ...

    def get(self, key: str) -> bytes:
        """One object's bytes; raises KeyError."""
        ...

    def open(self, key: str) -> Any:
        """One object as a seekable pyarrow stream, for reading a part of it; raises KeyError."""
        ...

    def keys(self, prefix: str) -> Iterator[str]:
        """Keys below a folder, sorted; `prefix` ends in a slash."""
        ...

    def objects(self, prefix: str) -> Iterator[Stored]:
        """What lies below a folder, in any order; `prefix` ends in a slash."""
        ...

    def delete(self, key: str) -> None:
        """Remove one object; a missing one is no error."""
        ...

    def sweep(self) -> None:
        """Remove what an interrupted writer left half-written. Call it while no other writer runs."""
        ...


def open_store(url: str, config: StorageConfig | None = None) -> Store:
    """The store of a local path or an s3://bucket/prefix address.

    Raises:
        ValueError: for any other scheme, or an address that holds credentials.
    """
    if url.startswith("s3://"):
        from factory.storage.s3 import S3Store

        return S3Store(url, config or StorageConfig())
    if "://" in url:
        raise ValueError(f"{url}: scheme not supported. Available: a local path, s3://bucket/prefix")
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
        raise ValueError(f"{store.root}/{key} holds no JSON object; restore it, or name another folder")
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
        raise ValueError(f"{uri}: scheme not supported. Available: a local path, s3://bucket/key")
    from factory.storage.s3 import arrow_filesystem, split

    bucket, key = split(uri)
    return arrow_filesystem(bucket, config or StorageConfig()), f"{bucket}/{key}"


def checked(key: str) -> str:
    """The key; raises ValueError when it could leave its folder."""
    parts = key.split("/")
    if not key or any(part in ("", ".", "..") for part in parts) or "\\" in key or "\0" in key:
        raise ValueError(f"key {key!r} is not allowed; use relative parts without '..'")
    return key


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
