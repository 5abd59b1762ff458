"""Read the pictures that rows name, from below one folder and from the hosts that the user allows: `RowImages`."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from factory.prompts.download import DownloadError, checked_hosts, fetch
from factory.prompts.raw_rows import Raw
from factory.prompts.row_error import RowError, short
from recon.pictures import MAX_BYTES

IN_FLIGHT = 16
"""Pictures that are fetched at once, of up to 32 MiB each."""


class RowImages:
    """The pictures of one table.

    Args:
        root: folder that paths are relative to and may not leave. hosts: that https:// addresses may name, as
            "images.example.com" or with a port; without any, none is fetched.

    Raises:
        UserError: for a host that is no name.
    """

    def __init__(self, root: str, hosts: Sequence[str] = ()) -> None:
        self.root, self.hosts = root, checked_hosts(hosts)

    def ahead(self, rows: Iterator[Raw]) -> Iterator[Raw]:
        """The rows in their order, while pictures of the next ones are being fetched."""
        if not self.hosts:
            yield from rows
            return
        waiting: deque[Raw] = deque()
        pool = ThreadPoolExecutor(IN_FLIGHT, "pictures")
        try:
            for row in rows:
                address = _named(row.values.get("image"))
                if isinstance(address, str) and "://" in address:
                    row.values["image"] = pool.submit(fetch, address, self.hosts, MAX_BYTES)
                waiting.append(row)
                if len(waiting) == IN_FLIGHT:
                    yield waiting.popleft()
            yield from waiting
        finally:
            pool.shutdown(cancel_futures=True)

    def read(self, value: Any) -> bytes | None:
        """The encoded bytes that a row's `image` stands for; None without one.

        Raises:
            RowError: when it cannot be read, is empty, or has over 32 MiB.
        """
        value = _named(value)
        if value is None or value in ("", b""):
            return None
        said = f"image {short(value)}" if isinstance(value, str) else "image"
        if isinstance(value, Future):
            value = _fetched(value)
        if isinstance(value, str):
            value = self._file(value)
        if not isinstance(value, bytes):
            raise RowError("UnreadableImage", f"image is a {type(value).__name__}; give bytes or a path")
        if not value:
            raise RowError("UnreadableImage", f"{said} has no bytes; write it again")
        if len(value) > MAX_BYTES:
            raise RowError("ImageTooLarge", f"image has {len(value)} bytes; the limit is {MAX_BYTES}: shrink it")
        return value

    def _file(self, path: str) -> bytes:
        if "://" in path or "://" in self.root:
            raise RowError(
                "UnreadableImage",
                f"image {short(path)} is not fetched: put the bytes into the table, or allow the host of an https:// "
                "address with --image-hosts (docs/inputs.md)",
            )
        try:
            folder = Path(self.root).resolve()
            file = (folder / path).resolve()
            if not file.is_relative_to(folder):
                raise RowError("UnreadableImage", f"image {short(path)} lies outside {self.root}; see --image-root")
            if not file.is_file():
                raise RowError("UnreadableImage", f"image {short(path)} is no file below {self.root}")
            with file.open("rb") as stream:
                return stream.read(MAX_BYTES + 1)
        except (OSError, ValueError) as error:
            if isinstance(error, RowError):
                raise
            raise RowError("UnreadableImage", f"image {short(path)}: {error}") from error


def _named(value: Any) -> Any:
    """What a row's `image` holds: of {bytes, path} the one that is there."""
    return value.get("bytes") or value.get("path") if isinstance(value, dict) else value


def _fetched(future: Future[bytes]) -> bytes:
    try:
        return future.result()
    except DownloadError as error:
        raise RowError(error.kind, f"image {error}") from error
