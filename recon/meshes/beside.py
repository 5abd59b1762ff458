"""Read the files that a model names, from its own folder alone: `Beside`."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, unquote_to_bytes

Opener = Callable[[str], bytes]
"""The bytes of a file by its name relative to the model's folder; raises ValueError where there is none."""


class Beside:
    """The files that lie in a model's folder or below it, each read once.

    Args:
        opener: reads one of them; None where the model came without its folder.
        limit: most bytes of all of them together.
    """

    def __init__(self, opener: Opener | None, limit: int) -> None:
        self.opener, self.left = opener, limit
        self.known: dict[str, bytes] = {}

    def uri(self, uri: str) -> bytes:
        """What a percent-encoded address of glTF stands for: a `data:` text, or a file; ValueError otherwise."""
        if uri[:5].lower() == "data:":
            return self._counted(_data(uri))
        if ":" in uri.split("/")[0]:
            raise ValueError(f"{uri[:120]!r} lies outside of the model's folder; pack everything into one .glb")
        return self.file(unquote(uri))

    def file(self, name: str) -> bytes:
        """A file by its name, with / or \\ between folders; ValueError when it is missing or lies elsewhere."""
        name = name.replace("\\", "/")
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or ":" in name or "\0" in name or not path.parts:
            raise ValueError(f"{name[:120]!r} lies outside of the model's folder; put it beside the model")
        if self.opener is None:
            raise ValueError(f"the model needs {name[:120]!r} beside it, and came alone; pack everything into one .glb")
        key = str(path)
        if key not in self.known:
            self.known[key] = self._counted(self.opener(key))
        return self.known[key]

    def _counted(self, data: bytes) -> bytes:
        self.left -= len(data)
        if self.left < 0:
            raise ValueError("the files that the model names are larger than the limit for meshes: decimate it first")
        return data


def opener_of(folder: Path, limit: int) -> Opener:
    """Reads files of up to `limit` bytes of a local folder; what a link leads out of it is not read."""

    def read(name: str) -> bytes:
        path = (folder / name).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise ValueError(f"{name[:120]!r} lies outside of the model's folder; put it beside the model")
        if not path.is_file():
            raise ValueError(f"the model needs {name[:120]!r}, which is not beside it")
        if path.stat().st_size > limit:
            raise ValueError(f"{name[:120]!r} has {path.stat().st_size} bytes; the limit is {limit}")
        return path.read_bytes()

    return read


def _data(uri: str) -> bytes:
    """The bytes of a `data:` address."""
    head, comma, body = uri.partition(",")
    if not comma:
        raise ValueError("a data: address has no comma")
    if not head.lower().endswith(";base64"):
        return unquote_to_bytes(body)
    try:
        return base64.b64decode(unquote(body) if "%" in body else body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"a data: address is not base64: {error}") from error
