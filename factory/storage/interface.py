"""Declare what every object store must do: the protocols `ReadableStore` and `Store`, and `StorageConfig`.

A key is seen wholly or not at all. `create` is the only way two writers may meet: one of them wins.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from recon.user_error import UserError


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
            raise UserError("storage.endpoint must be http:// or https:// without user name and password")
        if self.anonymous and self.role_arn:
            raise UserError("storage.anonymous and storage.role_arn exclude each other; give one of them")
        if not 5 <= self.part_mb <= 1024:
            raise UserError(f"storage.part_mb is {self.part_mb}; it must lie in [5, 1024]")
        if not 0 < self.timeout_seconds <= 3600:
            raise UserError(f"storage.timeout_seconds is {self.timeout_seconds}; it must lie in (0, 3600]")
        if not 1 <= self.attempts <= 100:
            raise UserError(f"storage.attempts is {self.attempts}; it must lie in [1, 100]")


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


class ReadableStore(Protocol):
    """What reading wants of a place for files. Every method raises OSError when the place fails."""

    root: str

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


class Store(ReadableStore, Protocol):
    """What the line needs of a place for files: reading, and writing."""

    def put(self, key: str, data: bytes) -> None:
        """Write or replace one object, durably."""
        ...

    def create(self, key: str, data: bytes) -> bool:
        """Write one object unless it exists; False when it did, and then nothing has changed."""
        ...

    def delete(self, key: str) -> None:
        """Remove one object; a missing one is no error."""
        ...

    def sweep(self) -> None:
        """Remove what an interrupted writer left half-written. Call it while no other writer runs."""
        ...


def checked(key: str) -> str:
    """The key; raises ValueError when it could leave its folder."""
    parts = key.split("/")
    if not key or any(part in ("", ".", "..") for part in parts) or "\\" in key or "\0" in key:
        raise ValueError(f"key {key!r} is not allowed; use relative parts without '..'")
    return key
