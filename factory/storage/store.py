"""Open the object store of an address, a local folder or s3://: `open_store`. Keys are relative, writes atomic."""

from __future__ import annotations

import json
from typing import Any

from factory.storage.interface import StorageConfig, Store
from factory.storage.local import LocalStore
from recon.user_error import UserError


def open_store(url: str, config: StorageConfig | None = None) -> Store:
    """The store of a local path or an s3://bucket/prefix address.

    Raises:
        UserError: for any other scheme, or an address that holds credentials.
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
        UserError: when there is something else.
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
        UserError: for any other scheme, or an address that holds credentials.
    """
    import pyarrow.fs

    if "://" not in uri:
        return pyarrow.fs.LocalFileSystem(), uri
    if not uri.startswith("s3://"):
        raise UserError(f"{uri}: scheme not supported. Available: a local path, s3://bucket/key")
    from factory.storage.s3 import arrow_filesystem, split

    bucket, key = split(uri)
    return arrow_filesystem(bucket, config or StorageConfig()), f"{bucket}/{key}"
