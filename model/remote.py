"""Read weights at addresses, by a file system that whoever runs the process may set: `open_address`, `read_by`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from recon.user_error import UserError

Opener = Callable[[str], tuple[Any, str]]
"""The pyarrow file system of an address, and the path in it."""


def by_environment(address: str) -> tuple[Any, str]:
    """As pyarrow opens it, with what the cloud's environment says."""
    from pyarrow import fs

    return fs.FileSystem.from_uri(address)


_opener: Opener = by_environment


def read_by(opener: Opener) -> None:
    """Let this process open the addresses of weights by `opener`; without it, the cloud's environment counts alone."""
    global _opener
    _opener = opener


def open_address(address: str) -> tuple[Any, str]:
    """The pyarrow file system of a folder or file, and the path in it.

    Raises:
        UserError: if the address cannot be opened.
    """
    try:
        return _opener(address.rstrip("/"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read model weights at {address}: {error}") from error
