"""Read PLY meshes in text and both byte orders: `read_ply`."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import cast

import numpy as np
from numpy.typing import NDArray

from recon.meshes.parts import Look, Part, flat_normals, unit_colors
from recon.meshes.polygons import all_triangulated
from recon.ply_header import MAX_HEADER_BYTES, Header, read_header
from recon.ply_rows import Columns, Lists, PlyRows

_COLORS = (("red", "green", "blue"), ("diffuse_red", "diffuse_green", "diffuse_blue"), ("r", "g", "b"))
_CORNERS = ("vertex_indices", "vertex_index")


def read_ply(data: bytes, max_faces: int) -> list[Part]:
    """The polygons and strips of a PLY as triangles, with sRGB colours of vertices, else of faces; flat where it has
    no normals.

    Raises:
        ValueError: when it is broken, holds no faces or over `max_faces`, draws edges or names a texture.
    """
    if re.search(rb"^comment +TextureFile", data[:MAX_HEADER_BYTES].partition(b"end_header")[0], re.MULTILINE):
        raise ValueError("textures of a PLY are not read; convert it to GLB")
    header = read_header(data, "the file")
    for name, limit in (("face", max_faces), ("vertex", 3 * max_faces)):
        if header.count(name) > limit:
            number = f"{header.count(name)} elements of kind {name}"
            raise ValueError(f"asset has {number}; the limit is {limit}: decimate it first")
    if header.count("edge"):
        raise ValueError(f"it draws {header.count('edge')} edges; only faces are read: remove them")
    rows = PlyRows(header, data)
    columns = {name: rows.columns(element) for name, element in _needed(header).items()}
    vertices = columns.get("vertex", {})
    if not {"x", "y", "z"} <= vertices.keys():
        raise ValueError("its vertices have no x, y and z")
    points = _stacked(vertices, ("x", "y", "z"))
    faces, owners = _faces(columns, points, max_faces)
    if not len(faces):
        raise ValueError("asset has no triangles to render")
    corners, nowhere = points[faces], np.broadcast_to(0.0, (len(faces), 3, 2))
    has_normals = {"nx", "ny", "nz"} <= vertices.keys()
    return [
        Part(
            corners=corners,
            normals=_unit(_stacked(vertices, ("nx", "ny", "nz"))[faces]) if has_normals else flat_normals(corners),
            colors=_colors(header, columns, faces, owners),
            alphas=np.broadcast_to(1.0, faces.shape),
            uvs=nowhere,
            emission_uvs=nowhere,
            look=Look(),
        )
    ]


def _needed(header: Header) -> dict:
    """The elements up to the last one that is read."""
    names = [*header.elements]
    last = max((names.index(name) for name in ("vertex", "face", "tristrips") if name in names), default=-1)
    return {name: header.elements[name] for name in names[: last + 1]}


def _faces(
    columns: dict[str, Columns], points: NDArray[np.float64], max_faces: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Triangles [F,3] as numbers of points, and of which face each is; -1 for those of strips."""
    polygons, strips = _lists(columns.get("face", {})), _lists(columns.get("tristrips", {}))
    if len(polygons.counts) and polygons.counts.min() < 3:
        raise ValueError(f"a face has {polygons.counts.min()} corners; it needs three")
    if (polygons.counts - 2).sum() + len(strips.values) > max_faces:
        raise ValueError(f"asset has over {max_faces} faces: decimate it first")
    for numbers, least in ((polygons.values, 0), (strips.values, -1)):
        if numbers.size and (numbers.min() < least or numbers.max() >= len(points)):
            wrong = numbers.min() if numbers.min() < least else numbers.max()
            raise ValueError(f"a face names vertex {int(wrong)}; there are {len(points)}")
    faces, owners = all_triangulated(polygons.values.astype(np.int64), polygons.counts, points)
    strip = _strips(strips)
    return np.concatenate([faces, strip]), np.concatenate([owners, np.full(len(strip), -1)])


def _lists(columns: Columns) -> Lists:
    """The list of corners of an element, empty where there is none."""
    found = next((columns[name] for name in _CORNERS if isinstance(columns.get(name), Lists)), None)
    return cast(Lists, found) if found is not None else Lists(np.zeros(0, np.int64), np.zeros(0, np.int64))


def _strips(lists: Lists) -> NDArray[np.int64]:
    """Triangles [F,3] of strips; -1 within one begins another."""
    values, found = lists.values.astype(np.int64), [np.zeros((0, 3), np.int64)]
    ends = {0, len(values), *np.cumsum(lists.counts).tolist(), *np.flatnonzero(values < 0).tolist()}
    cuts = sorted(ends)
    for start, end in pairwise(cuts):
        strip = values[start:end]
        strip = strip[strip >= 0]
        first = np.arange(max(len(strip) - 2, 0))
        found.append(strip[np.stack([first, first + 1 + first % 2, first + 2 - first % 2], -1)])
    return np.concatenate(found)


def _colors(
    header: Header, columns: dict[str, Columns], faces: NDArray[np.int64], owners: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Colours [F,3,3] of the vertices, else of the faces, else white."""
    for name, places in (("vertex", faces), ("face", owners[:, None])):
        found = columns.get(name, {})
        for channels in _COLORS:
            if set(channels) <= found.keys():
                kind = header.elements[name].properties[channels[0]]
                colors = _in_unit_range(_stacked(found, channels), np.dtype(kind))
                colors = np.concatenate([colors, np.ones((1, 3))])  # a strip, -1, has no colour of a face
                return np.broadcast_to(colors[places], (len(faces), 3, 3))
    return np.ones((len(faces), 3, 3))


def _in_unit_range(values: NDArray[np.float64], kind: np.dtype) -> NDArray[np.float64]:
    """Colours [N,3] of the type that the header names in [0, 1]."""
    if kind.kind == "f":
        return unit_colors(values)
    most = np.iinfo(kind).max
    if kind not in (np.uint8, np.uint16):  # wider than what colours need: by what there is
        most = 255 if not values.size or values.max() <= 255 else 65535
    return (values / most).clip(0, 1)


def _stacked(columns: Columns, names: tuple[str, ...]) -> NDArray[np.float64]:
    return np.stack([cast(NDArray, columns[name]).astype(np.float64) for name in names], -1)


def _unit(normals: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(normals, axis=-1, keepdims=True)
    return normals / np.where(lengths > 0, lengths, 1)
