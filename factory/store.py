"""Where bytes go: one folder on local disk or under s3://, written atomically, addressed by relative keys.

A key is seen wholly or not at all. `create` is the only way two writers may meet: one of them wins.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

_TEMPORARY = ".tmp"
_CONFLICT_ATTEMPTS = 6


class Store(Protocol):
    """What the line needs of a place for files."""

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

    def keys(self, prefix: str) -> Iterator[str]:
        """Keys below a folder, sorted; `prefix` ends in a slash."""
        ...

    def delete(self, key: str) -> None:
        """Remove one object; a missing one is no error."""
        ...

    def sweep(self) -> None:
        """Remove what an interrupted writer left half-written. Call it while no other writer runs."""
        ...


def open_store(url: str, endpoint: str | None = None) -> Store:
    """The store of a local path or an s3://bucket/prefix address.

    Raises:
        ValueError: for any other scheme.
    """
    if url.startswith("s3://"):
        return S3Store(url, endpoint)
    if "://" in url:
        raise ValueError(f"{url}: scheme not supported. Available: a local path, s3://bucket/prefix")
    return LocalStore(url)


def pyarrow_filesystem(uri: str) -> tuple[Any, str]:
    """The pyarrow file system of a local path or s3:// address, and the path in it.

    Raises:
        ValueError: for any other scheme. S3 honours AWS_ENDPOINT_URL.
    """
    import pyarrow.fs

    if "://" not in uri:
        return pyarrow.fs.LocalFileSystem(), uri
    if not uri.startswith("s3://"):
        raise ValueError(f"{uri}: scheme not supported. Available: a local path, s3://bucket/key")
    return pyarrow.fs.FileSystem.from_uri(uri)


def _checked(key: str) -> str:
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
            return Path(self.root, _checked(key)).read_bytes()
        except (FileNotFoundError, IsADirectoryError) as error:
            raise KeyError(key) from error

    def keys(self, prefix: str) -> Iterator[str]:
        folder = Path(self.root, _checked(prefix.rstrip("/")))
        found = (Path(base, name) for base, _, names in os.walk(folder) for name in names)
        yield from sorted(path.relative_to(self.root).as_posix() for path in found)

    def delete(self, key: str) -> None:
        Path(self.root, _checked(key)).unlink(missing_ok=True)

    def sweep(self) -> None:
        shutil.rmtree(Path(self.root, _TEMPORARY), ignore_errors=True)

    def _target(self, key: str) -> Path:
        target = Path(self.root, _checked(key))
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


class S3Store:
    """A prefix of a bucket. `create` is a conditional put (If-None-Match: *)."""

    def __init__(self, url: str, endpoint: str | None = None) -> None:
        self.root = url.rstrip("/")
        self.bucket, _, self.prefix = self.root.removeprefix("s3://").partition("/")
        self.endpoint = endpoint
        self._client: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_client": None}

    @property
    def client(self) -> Any:
        """The boto3 client, made at first use in each process. Credentials come from boto3's usual chain."""
        if self._client is None:
            import boto3
            from botocore.config import Config

            retries: Any = {"mode": "adaptive", "max_attempts": 8}
            self._client = boto3.client("s3", endpoint_url=self.endpoint, config=Config(retries=retries))
        return self._client

    def put(self, key: str, data: bytes) -> None:
        self._call("put_object", key, Body=data)

    def create(self, key: str, data: bytes) -> bool:
        for attempt in range(_CONFLICT_ATTEMPTS):
            status = self._call("put_object", key, (409, 412), Body=data, IfNoneMatch="*")
            if isinstance(status, dict):
                return True
            if status == 412:
                return self.get(key) == data  # ours, when only the answer to the first try was lost
            time.sleep(0.1 * 2**attempt)
        raise OSError(f"{self.root}/{key}: the server reports a conflict again and again")

    def get(self, key: str) -> bytes:
        answer = self._call("get_object", key, (404,))
        if not isinstance(answer, dict):
            raise KeyError(key)
        return answer["Body"].read()

    def keys(self, prefix: str) -> Iterator[str]:
        start = len(self.prefix) + 1 if self.prefix else 0
        more: dict[str, Any] = {}
        while True:
            page = self._call("list_objects_v2", prefix.rstrip("/"), folder=True, **more)
            yield from (item["Key"][start:] for item in page.get("Contents", []))
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def delete(self, key: str) -> None:
        self._call("delete_object", key)

    def sweep(self) -> None:
        """Nothing: S3 shows no object before it is whole."""

    def _call(
        self, method: str, key: str, expected: tuple[int, ...] = (), folder: bool = False, **arguments: Any
    ) -> Any:
        """The answer of one request, or its HTTP status where that is expected; anything else is an OSError."""
        from botocore.exceptions import BotoCoreError, ClientError

        name = f"{self.prefix}/{_checked(key)}" if self.prefix else _checked(key)
        target = {"Prefix": f"{name}/"} if folder else {"Key": name}
        try:
            return getattr(self.client, method)(Bucket=self.bucket, **target, **arguments)
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            if status in expected:
                return status
            raise OSError(f"{self.root}/{key}: {method}: {error}") from error
        except BotoCoreError as error:
            raise OSError(f"{self.root}/{key}: {method}: {error}") from error
