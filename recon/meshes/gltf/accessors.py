"""Read the numbers of a glTF: `Accessors`, typed rows in buffers, sparse, interleaved and normalised ones too."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recon.meshes.gltf.document import Document
from recon.meshes.gltf.extensions import extensions_of
from recon.meshes.gltf.fields import Fields

MAX_ELEMENTS = 6_000_000
"""Of one accessor: three corners of each of the two million faces that a mesh may have."""
MAX_SPARSE_BYTES = 512 << 20
"""Of all sparse accessors together; the others take no memory of their own."""

_COMPONENTS = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}


@dataclass(frozen=True, slots=True)
class Rows:
    """What an accessor holds, as it is stored: `raw` [count, width]; `where` names it in errors."""

    raw: NDArray
    normalized: bool
    where: str

    def __len__(self) -> int:
        return len(self.raw)

    @property
    def width(self) -> int:
        """Numbers of a row."""
        return self.raw.shape[1]

    def whole(self) -> NDArray[np.int64]:
        """All rows as whole numbers [count, width].

        Raises:
            ValueError: when they are stored as floats or may be negative.
        """
        if self.raw.dtype.kind != "u":
            raise ValueError(f"{self.where} holds {self.raw.dtype.name}; indices and joints must be unsigned integers")
        return self.raw.astype(np.int64)

    def at(self, indices: NDArray[np.int64] | slice, normalized: bool | None = None) -> NDArray[np.float64]:
        """Rows as numbers [..., width]; integers that are normalised come out in [0, 1] or [-1, 1].

        Args:
            indices: which rows. normalized: whether integers are, instead of what the file says.

        Raises:
            ValueError: when one of these rows holds a NaN or an infinite number.
        """
        values = self.raw[indices].astype(np.float64)
        if self.raw.dtype.kind == "f":
            if not np.isfinite(values).all():
                raise ValueError(f"{self.where} holds NaN or infinite numbers")
        elif self.normalized if normalized is None else normalized:
            values = np.maximum(values / np.iinfo(self.raw.dtype).max, -1.0)
        return values


class Accessors:
    """The accessors of a file, each made once."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.made: dict[int, Rows] = {}
        self.sparse_bytes = 0

    def rows(self, index: int, use: str, widths: tuple[int, ...]) -> Rows:
        """An accessor's rows.

        Args:
            index: its number. use: what for, as "POSITION of meshes[0]". widths: how many numbers a row may have.

        Raises:
            ValueError: when it is broken, reaches over its buffer's end, is too large or of another width.
        """
        if index not in self.made:
            self.made[index] = self._rows(self.document.item("accessors", index))
        rows = self.made[index]
        if rows.width not in widths:
            wanted = " or ".join(map(str, widths))
            raise ValueError(f"{rows.where} has {rows.width} numbers a row; {use} needs {wanted}")
        return replace(rows, where=f"{use} ({rows.where})")

    def _rows(self, fields: Fields) -> Rows:
        extensions_of(fields)
        count, width, kind = shape_of(fields)
        view = fields.optional("bufferView")
        if view is None:
            raw = np.broadcast_to(np.zeros(1, kind), (count, width))
        else:
            raw = self._stored(view, fields.whole("byteOffset", 0), (count, width), kind, fields.where)
        if "sparse" in fields:
            raw = self._replaced(raw, fields.child("sparse"))
        return Rows(raw, fields.flag("normalized", False), fields.where)

    def _stored(self, view: int, offset: int, shape: tuple[int, int], kind: np.dtype, where: str) -> NDArray:
        """Rows [count, width] of a buffer view, where they lie."""
        data, stride = self.document.view(view)
        (count, width), size = shape, kind.itemsize * shape[1]
        step = stride or size
        if step < size:
            raise ValueError(f"bufferViews[{view}].byteStride is {step}; the rows of {where} have {size} bytes")
        if count and offset + step * (count - 1) + size > len(data):
            raise ValueError(f"{where} reaches to byte {offset + step * (count - 1) + size} of bufferViews[{view}], "
                             f"which has {len(data)}")  # fmt: skip
        return np.ndarray((count, width), kind, data, offset, (step, kind.itemsize)) if count else np.empty(shape, kind)

    def _replaced(self, raw: NDArray, sparse: Fields) -> NDArray:
        """The rows with those exchanged that a sparse accessor lists."""
        count, places, values = sparse.whole("count"), sparse.child("indices"), sparse.child("values")
        if count > len(raw):
            raise ValueError(f"{sparse.where}.count is {count}; the accessor has {len(raw)} elements")
        self.sparse_bytes += raw.itemsize * raw.size
        if self.sparse_bytes > MAX_SPARSE_BYTES:
            raise ValueError(f"sparse accessors need over {MAX_SPARSE_BYTES} bytes: export the file without them")
        kind = _component(places)
        if kind.kind != "u":
            raise ValueError(f"{places.where}.componentType must be an unsigned integer's")
        at = places.whole("bufferView"), places.whole("byteOffset", 0)
        rows = self._stored(*at, (count, 1), kind, places.where)[:, 0].astype(np.int64)
        if count and rows.max() >= len(raw):
            raise ValueError(f"{places.where} names element {rows.max()} of an accessor that has {len(raw)}")
        at = values.whole("bufferView"), values.whole("byteOffset", 0)
        full = np.array(raw)
        full[rows] = self._stored(*at, (count, raw.shape[1]), raw.dtype, values.where)
        return full


def shape_of(fields: Fields) -> tuple[int, int, np.dtype]:
    """Rows, numbers a row and their type; ValueError for what no accessor of a picture may be."""
    count, word = fields.whole("count"), fields.text("type", "")
    if count > MAX_ELEMENTS:
        raise ValueError(f"{fields.where} has {count} elements; the limit is {MAX_ELEMENTS}: decimate it first")
    if word not in _WIDTHS:
        raise ValueError(f"{fields.where}.type is {word[:20]!r}. Available: {', '.join(_WIDTHS)}")
    return count, _WIDTHS[word], _component(fields)


def _component(fields: Fields) -> np.dtype:
    code = fields.whole("componentType")
    if code not in _COMPONENTS:
        raise ValueError(f"{fields.where}.componentType is {code}. Available: {', '.join(map(str, _COMPONENTS))}")
    return np.dtype(_COMPONENTS[code])
