"""Read the header of a PLY, whoever wrote it: `read_header`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np

MAX_HEADER_BYTES = 1 << 20
_FORMATS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4",
    "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4",
    "float32": "f4", "float64": "f8",
}  # fmt: skip


@dataclass(kw_only=True, slots=True)
class Element:
    """One kind of rows of a PLY."""

    name: str
    count: int
    properties: dict[str, str] = field(default_factory=dict)
    """numpy types without byte order, by name; "list" for lists."""
    lists: dict[str, tuple[str, str]] = field(default_factory=dict)
    """The types of a list's length and of its values, by name."""

    @property
    def has_lists(self) -> bool:
        """Whether its rows differ in length."""
        return "list" in self.properties.values()


@dataclass(kw_only=True, slots=True)
class Header:
    """What a PLY says that it holds."""

    order: str
    """Byte order "<" or ">"; "" for text."""
    elements: dict[str, Element]
    """By name, in the order of their rows."""
    start: int
    """The byte where the rows begin."""

    def count(self, element: str) -> int:
        """Rows of an element; 0 where there is none."""
        return self.elements[element].count if element in self.elements else 0

    def table(self, data: bytes, element: str, path: str) -> np.ndarray:
        """The rows of an element without lists [N], with a field a property.

        Raises:
            ValueError: if they are cut short, or come after rows of other lengths.
        """
        wanted, position = self.elements[element], self.start
        before = [self.elements[name] for name in [*self.elements][: [*self.elements].index(element)]]
        if lists := [one.name for one in (*before, wanted) if one.has_lists]:
            raise ValueError(f"{path} has lists in its element {lists[0]!r}, which is not read")
        kinds = np.dtype([(name, self.order + kind) for name, kind in wanted.properties.items()])
        if not self.order:
            return self._text_table(data, before, wanted, path)
        position += sum(one.count * _row_bytes(one) for one in before)
        there, size = max(0, len(data) - position), wanted.count * kinds.itemsize
        if there < size:
            raise ValueError(f"{path} is cut short: {there} bytes of {size} after its header; write it again")
        return np.frombuffer(data, kinds, wanted.count, position)

    def _text_table(self, data: bytes, before: list[Element], wanted: Element, path: str) -> np.ndarray:
        skipped, width = sum(one.count * len(one.properties) for one in before), len(wanted.properties)
        there, size = len(data) - self.start, 2 * (skipped + wanted.count * width) - 1
        if there < size:  # a digit and a space each
            raise ValueError(f"{path} is cut short: {there} bytes for {size // 2 + 1} numbers; write it again")
        try:
            values = np.fromstring(
                data[self.start :].decode("ascii"), np.float64, skipped + wanted.count * width, sep=" "
            )
        except (ValueError, DeprecationWarning) as error:
            raise ValueError(f"{path} holds rows that are no numbers, or is cut short; write it again") from error
        if len(values) < skipped + wanted.count * width:
            raise ValueError(f"{path} is cut short: {len(values)} numbers of {skipped + wanted.count * width} after "
                             "its header; write it again")  # fmt: skip
        rows = values[skipped:].reshape(wanted.count, width)
        found = np.zeros(wanted.count, [(name, kind) for name, kind in wanted.properties.items()])
        for place, name in enumerate(wanted.properties):
            found[name] = rows[:, place]
        return found


def _row_bytes(element: Element) -> int:
    return sum(np.dtype(kind).itemsize for kind in element.properties.values())


def read_header(data: bytes, path: str) -> Header:
    r"""The header of a PLY in text or binary of either byte order, with lines that end in \n, \r\n or \r.

    Raises:
        ValueError: if it is none; `path` names the file.
    """
    end = re.search(rb"[\r\n]end_header[ \t]*(\r\n|\n|\r)", data[:MAX_HEADER_BYTES])
    if not re.match(rb"ply[ \t]*[\r\n]", data) or not end:
        raise ValueError(f"{path} is no PLY file: it does not begin with a PLY header")
    order, elements = None, dict[str, Element]()
    for line in data[: end.start()].decode("latin-1").splitlines()[1:]:
        kind, *words = line.split() or [""]
        if kind == "format":
            order = _FORMATS.get(words[0]) if len(words) == 2 and words[1] == "1.0" else None
            if order is None:
                raise ValueError(f"{path} has {line[:80]!r}; formats are {', '.join(_FORMATS)}, version 1.0")
        elif kind == "element":
            if len(words) != 2 or not words[1].isdecimal() or words[0] in elements:
                raise ValueError(f"{path} has {line[:80]!r}; an element has a name of its own and a number >= 0")
            elements[words[0]] = Element(name=words[0], count=int(words[1]))
        elif kind == "property":
            _add_property(elements, line, words, path)
    if order is None or not elements:
        raise ValueError(f"{path} needs a line 'format ...' and an element")
    return Header(order=order, elements=elements, start=end.end())


def _add_property(elements: dict[str, Element], line: str, words: list[str], path: str) -> None:
    last = next(reversed(elements.values()), None)
    is_list = len(words) == 4 and words[0] == "list" and words[1] in _TYPES and words[2] in _TYPES
    kind = "list" if is_list else _TYPES.get(words[0]) if len(words) == 2 else None
    if last is None or kind is None or words[-1] in last.properties:
        raise ValueError(f"{path} has {line[:80]!r}; a property has a known type, a name of its own and an element")
    last.properties[words[-1]] = kind
    if is_list:
        last.lists[words[-1]] = _TYPES[words[1]], _TYPES[words[2]]
