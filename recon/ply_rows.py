"""Read the rows of a PLY that has lists, in text and both byte orders: `PlyRows`."""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recon.ply_header import Element, Header

_CODES = {"i1": "b", "u1": "B", "i2": "h", "u2": "H", "i4": "i", "u4": "I", "f4": "f", "f8": "d"}


class Lists(NamedTuple):
    """Lists of a property: `counts` [N], how long each is, and `values`, all of them one after another."""

    counts: NDArray[np.int64]
    values: NDArray


Columns = dict[str, "NDArray | Lists"]
"""The properties of an element by name."""


class PlyRows:
    """The elements of a file, read in the order in which they lie.

    Args:
        header: of the file. data: the file.

    Raises:
        ValueError: when a text holds what is no number.
    """

    def __init__(self, header: Header, data: bytes) -> None:
        self.header, self.text = header, not header.order
        self.order, self.at = header.order or "<", 0
        body = data[header.start :]
        if self.text:  # numbers of a text are taken as a binary file's of one type
            try:
                body = np.fromstring(body.decode("ascii"), "<f8", sep=" ").tobytes()
            except (ValueError, DeprecationWarning) as error:
                raise ValueError("the file holds rows that are no numbers; write it again") from error
        self.body = body

    def columns(self, element: Element) -> Columns:
        """The next element.

        Raises:
            ValueError: when its rows are cut short, or a list's length is none.
        """
        if element.count and (found := self._alike(element)) is not None:
            return found
        return self._each(element)

    def _alike(self, element: Element) -> Columns | None:
        """Rows whose lists are all as long as those of the first; None where they are not."""
        fields, end = [], self.at
        for name, kind in element.properties.items():
            if kind == "list":
                length, kind = (self._kind(kind) for kind in element.lists[name])
                count = self._length(end, length, element)
                fields += [(f"{name} length", self.order + length), (name, self.order + kind, (count,))]
                end += _size(length) + count * _size(kind)
            else:
                fields.append((name, self.order + self._kind(kind)))
                end += _size(self._kind(kind))
        kinds = np.dtype(fields)
        if self.at + element.count * kinds.itemsize > len(self.body):
            if element.has_lists:
                return None
            raise self._cut(element)
        table = np.frombuffer(self.body, kinds, element.count, self.at)
        lists = [name for name, kind in element.properties.items() if kind == "list"]
        if any((table[f"{name} length"] != kinds[name].shape[0]).any() for name in lists):
            return None
        self.at += table.nbytes
        counts = {name: np.full(element.count, kinds[name].shape[0]) for name in lists}
        return {name: Lists(counts[name], table[name].reshape(-1)) if name in counts else table[name]
                for name in element.properties}  # fmt: skip

    def _each(self, element: Element) -> Columns:
        """Rows of different lengths, one by one."""
        counts = {name: np.zeros(element.count, np.int64) for name in element.lists}
        values = {name: bytearray() for name in element.properties}
        for row in range(element.count):
            for name, kind in element.properties.items():
                count = 1
                if kind == "list":
                    length, kind = element.lists[name]
                    count = counts[name][row] = self._length(self.at, self._kind(length), element)
                    self.at += _size(self._kind(length))
                end = self.at + count * _size(self._kind(kind))
                if end > len(self.body):
                    raise self._cut(element)
                values[name] += self.body[self.at : end]
                self.at = end
        return {name: self._column(element, name, values[name], counts.get(name)) for name in element.properties}

    def _column(
        self, element: Element, name: str, data: bytearray, counts: NDArray[np.int64] | None
    ) -> NDArray | Lists:
        kind = element.properties[name] if counts is None else element.lists[name][1]
        values = np.frombuffer(data, self.order + self._kind(kind))
        return values if counts is None else Lists(counts, values)

    def _kind(self, kind: str) -> str:
        return "f8" if self.text else kind

    def _length(self, at: int, kind: str, element: Element) -> int:
        """The length of the list that begins at a byte."""
        if at + _size(kind) > len(self.body):
            raise self._cut(element)
        (length,) = struct.unpack_from(self.order + _CODES[kind], self.body, at)
        if not 0 <= length <= len(self.body) or length != int(length):
            raise ValueError(f"element {element.name!r} has a list of {length} values")
        return int(length)

    def _cut(self, element: Element) -> ValueError:
        return ValueError(f"the file is cut off in the {element.count} rows of {element.name!r}; write it again")


def _size(kind: str) -> int:
    """Bytes of a number of a numpy type such as "f4"."""
    return int(kind[1])
