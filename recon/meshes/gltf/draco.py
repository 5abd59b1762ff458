"""Unpack the meshes of KHR_draco_mesh_compression with Google's decoder: `unpacked`."""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recon.meshes.gltf.extensions import advice_for
from recon.meshes.gltf.fields import Fields

NAME = "KHR_draco_mesh_compression"
_MESH, _EDGEBREAKER = 1, 1
_METADATA = 0x8000


class Unpacked(NamedTuple):
    """Corners of triangles [3F] as numbers of vertices, and the vertices' attributes [V, width] by name."""

    indices: NDArray[np.int64]
    attributes: dict[str, NDArray]


def unpacked(extension: Fields, data: bytes, num_indices: int, num_vertices: int) -> Unpacked:
    """A primitive's triangles.

    Args:
        extension: with the numbers that its attributes have in the packed mesh. data: the packed mesh.
        num_indices, num_vertices: what the accessors of the primitive say.

    Raises:
        ValueError: when the mesh is broken, or is not the size that the accessors say.
    """
    import DracoPy

    try:
        _check_sizes(data, num_indices, num_vertices)
        mesh = DracoPy.decode(data)
        found = {attribute["unique_id"]: np.asarray(attribute["data"]) for attribute in mesh.attributes}
        indices = np.asarray(mesh.faces, np.int64).reshape(-1)
    except Exception as error:  # the decoder has half a dozen classes of errors of its own
        raise ValueError(f"{extension.where} holds no {NAME} that can be unpacked ({str(error)[:120]}); "
                         f"{advice_for(NAME)}") from error  # fmt: skip
    numbers = extension.child("attributes")
    attributes = {}
    for name in numbers.values:
        if numbers.whole(name) not in found:
            raise ValueError(f"{numbers.where}.{name} is missing from the packed mesh; {advice_for(NAME)}")
        attributes[name] = found[numbers.whole(name)]
    if len(indices) != num_indices or any(len(rows) != num_vertices for rows in attributes.values()):
        raise ValueError(f"{extension.where} is not as large as the accessors of {NAME} say; {advice_for(NAME)}")
    return Unpacked(indices, attributes)


def _check_sizes(data: bytes, num_indices: int, num_vertices: int) -> None:
    """Refuse a mesh whose own header promises another size, before the decoder makes room for it."""
    magic, major, minor, kind, method, flags = struct.unpack_from("<5sBBBBH", data)
    if magic != b"DRACO" or kind != _MESH:
        raise ValueError("it is no Draco mesh")
    if (major, minor) != (2, 2) or flags & _METADATA:
        raise ValueError(f"version {major}.{minor} or its metadata are not read")
    if method == _EDGEBREAKER:
        vertices, place = _varint(data, 12)
        faces, _ = _varint(data, place)
    else:
        faces, place = _varint(data, 11)
        vertices, _ = _varint(data, place)
    if 3 * faces != num_indices or vertices > num_vertices:
        raise ValueError(f"it has {faces} faces and {vertices} vertices; the accessors say {num_indices // 3} and "
                         f"{num_vertices}")  # fmt: skip


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """A number of 7 bits a byte, and where it ends."""
    value = shift = 0
    while True:
        value |= (data[place] & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if data[place - 1] < 0x80 or shift > 35:
            return value, place
