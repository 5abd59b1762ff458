"""Read Wavefront OBJ files with the materials and textures beside them: `read_obj`."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from recon.meshes.beside import Beside
from recon.meshes.mtl import Paint, read_mtl
from recon.meshes.parts import Look, Part, flat_normals, unit_colors
from recon.meshes.polygons import triangulated
from recon.meshes.textures import Textures

_NOT_READ = {"l": "lines", "p": "points", "curv": "curves", "curv2": "curves", "surf": "free-form surfaces",
             "cstype": "free-form surfaces", "call": "other files", "csh": "commands"}  # fmt: skip


def read_obj(data: bytes, beside: Beside, textures: Textures, max_faces: int) -> list[Part]:
    """The triangles of an OBJ; polygons are cut into some, and flat where they have no normals.

    Args:
        data: the file. beside: holds its .mtl and textures. textures: get them. max_faces: most triangles.

    Raises:
        ValueError: when a line is broken, a file is missing, or it draws what is not read: lines, points, curves.
    """
    reading = _Reading(beside, textures, max_faces)
    for number, line in _lines(data):
        try:
            reading.line(line)
        except (ValueError, IndexError, OverflowError) as error:
            raise ValueError(f"line {number}: {error}") from error
    return reading.parts()


def _lines(data: bytes) -> Iterator[tuple[int, str]]:
    """Numbered lines without comments; one that ends in a backslash goes on in the next. Names may hold a #."""
    whole = ""
    for number, line in enumerate(data.decode("utf-8-sig", "replace").splitlines(), 1):
        whole += line
        if whole.endswith("\\"):
            whole = whole[:-1] + " "
            continue
        named = whole.split(None, 1)[:1] in (["usemtl"], ["mtllib"])
        text, whole = (whole if named else whole.split("#", 1)[0]).strip(), ""
        if text:
            yield number, text


@dataclass(slots=True)
class _Reading:
    """What has been read of a file so far."""

    beside: Beside
    textures: Textures
    max_faces: int
    vertices: array = field(default_factory=lambda: array("d"))
    colors: array = field(default_factory=lambda: array("d"))
    places: array = field(default_factory=lambda: array("d"))
    normals: array = field(default_factory=lambda: array("d"))
    paints: dict[str, Paint] | None = None
    """None until the file names a .mtl."""
    material: str = ""
    corners: dict[str, array] = field(default_factory=dict)
    """Of each material: the vertex, place and normal of each corner of each triangle, -1 for none."""
    num_faces: int = 0

    def line(self, line: str) -> None:
        """Take one line in; ValueError where it is broken or not read."""
        word, _, rest = line.partition(" ")
        values = rest.split()
        if word == "v":
            self.vertices.extend(map(float, values[:3]))
            self.colors.extend(map(float, values[3:6] if len(values) >= 6 else (1, 1, 1)))
            _check(len(values) >= 3, "v needs three numbers")
        elif word == "vt":
            self.places.extend((float(values[0]), float(values[1]) if len(values) > 1 else 0.0))
        elif word == "vn":
            self.normals.extend(map(float, values[:3]))
            _check(len(values) >= 3, "vn needs three numbers")
        elif word == "f":
            self._face(values)
        elif word == "usemtl":
            self._use(rest.strip())
        elif word == "mtllib":
            name = rest.strip()
            self.paints = (self.paints or {}) | read_mtl(self.beside.file(name), name, self.beside, self.textures)
        elif word in _NOT_READ:
            raise ValueError(f"it draws {_NOT_READ[word]} ({word}); only triangles and polygons are read")

    def _use(self, name: str) -> None:
        if self.paints is not None and name not in self.paints:
            raise ValueError(f"material {name[:80]!r} is in none of the .mtl files that come before")
        self.material = name if self.paints else ""

    def _face(self, words: list[str]) -> None:
        corners = [self._corner(word) for word in words]
        _check(len(corners) >= 3, "f needs three corners")
        self.num_faces += len(corners) - 2
        _check(self.num_faces <= self.max_faces, f"asset has over {self.max_faces} faces: decimate it first")
        faces = self.corners.setdefault(self.material, array("q"))
        if len(corners) > 3:
            points = np.array([self.vertices[3 * v : 3 * v + 3] for v, _, _ in corners])
            for triangle in triangulated(points):
                for k in triangle:
                    faces.extend(corners[k])
        else:
            for corner in corners:
                faces.extend(corner)

    def _corner(self, word: str) -> tuple[int, int, int]:
        """The vertex, place and normal of "v/vt/vn"; a negative number counts from the last one back."""
        numbers = [*word.split("/"), "", ""]
        return (
            _index(numbers[0], len(self.vertices) // 3, "v"),
            _index(numbers[1], len(self.places) // 2, "vt"),
            _index(numbers[2], len(self.normals) // 3, "vn"),
        )

    def parts(self) -> list[Part]:
        """All triangles, those of a material together."""
        vertices, colors, normals = (
            np.array(values).reshape(-1, 3) for values in (self.vertices, self.colors, self.normals)
        )
        colors = unit_colors(colors)
        places = np.array(self.places).reshape(-1, 2)
        return [self._part(name, np.array(numbers).reshape(-1, 3, 3), vertices, colors, normals, places)
                for name, numbers in self.corners.items()]  # fmt: skip

    def _part(
        self, name: str, numbers: NDArray, vertices: NDArray, colors: NDArray, normals: NDArray, places: NDArray
    ) -> Part:
        paint = (self.paints or {}).get(name) or Paint(np.ones(3), Look(), np.ones(2), np.zeros(2))
        v, vt, vn = np.moveaxis(numbers, -1, 0)
        corners = vertices[v]
        flat = flat_normals(corners)
        if len(normals):
            given = normals[vn.clip(0)]
            lengths = np.linalg.norm(given, axis=-1, keepdims=True)
            flat = np.where((vn[..., None] >= 0) & (lengths > 0), given / np.where(lengths > 0, lengths, 1), flat)
        uvs = places[vt.clip(0)] * (vt[..., None] >= 0) if len(places) else np.zeros((*vt.shape, 2))
        return Part(
            corners=corners,
            normals=flat,
            colors=colors[v] * paint.factor,
            alphas=np.broadcast_to(1.0, vt.shape),
            uvs=uvs * paint.scale + paint.offset,
            emission_uvs=np.broadcast_to(0.0, uvs.shape),
            look=replace(paint.look),
        )


def _index(word: str, count: int, kind: str) -> int:
    if not word:
        _check(kind != "v", "a corner of a face has no vertex")
        return -1
    number = int(word)
    place = number - 1 if number > 0 else count + number
    _check(number != 0 and 0 <= place < count, f"a face names {kind} {number}; there are {count} before it")
    return place


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)
