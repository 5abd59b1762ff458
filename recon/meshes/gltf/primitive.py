"""Read the triangles of one primitive of a glTF: `Primitives`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recon.meshes.gltf import draco
from recon.meshes.gltf.accessors import Accessors, Rows, shape_of
from recon.meshes.gltf.document import Document
from recon.meshes.gltf.extensions import extensions_of
from recon.meshes.gltf.fields import Fields
from recon.meshes.gltf.materials import Material, Materials, TexturePlace
from recon.meshes.parts import Part, flat_normals, to_srgb, turned_normals

_TRIANGLES, _STRIP, _FAN = 4, 5, 6
_CHUNK = 1 << 14
_OTHERS = ("POINTS", "LINES", "LINE_LOOP", "LINE_STRIP")

Skinning = Callable[[NDArray[np.int64], NDArray[np.float64]], NDArray[np.float64]]
"""Joints and weights [...,K] of corners to their maps [...,4,4]."""


@dataclass(slots=True)
class Primitives:
    """The primitives of a file."""

    document: Document
    accessors: Accessors
    materials: Materials

    def num_faces(self, fields: Fields) -> int:
        """Triangles of a primitive, from sizes alone.

        Raises:
            ValueError: when it is made of points or lines.
        """
        mode = fields.whole("mode", _TRIANGLES)
        if mode < _TRIANGLES:
            raise ValueError(f"{fields.where} draws {_OTHERS[mode]}; only triangles are read: remove it from the file")
        if mode > _FAN:
            raise ValueError(f"{fields.where}.mode is {mode}; it must be 0 to 6")
        position = fields.child("attributes").optional("POSITION")
        corners = fields.optional("indices")
        if position is None:
            return 0
        count = shape_of(self.document.item("accessors", position if corners is None else corners))[0]
        return count // 3 if mode == _TRIANGLES else max(count - 2, 0)

    def part(self, fields: Fields, weights: list[float], skinning: Skinning | None) -> Part:
        """A primitive in its mesh's space, or in the scene's where it is skinned.

        Args:
            fields: of the primitive. weights: of its morph targets. skinning: of the skin of its node.
        """
        vertices = _Vertices(self, fields)
        material = self.materials.material(fields.optional("material"))
        corners = vertices.moved("POSITION", weights)
        if "NORMAL" in vertices:
            normals = vertices.moved("NORMAL", weights)
            lengths = np.linalg.norm(normals, axis=-1, keepdims=True)
            normals = normals / np.where(lengths > 0, lengths, 1)
        else:
            normals = flat_normals(corners)
        if skinning is not None and "JOINTS_0" in vertices:
            corners, normals = _posed(corners, normals, skinning, *vertices.bones())
        return _painted(vertices, material, corners, normals, weights)


class _Vertices:
    """The vertex attributes of a primitive, taken to the corners of its triangles."""

    def __init__(self, primitives: Primitives, fields: Fields) -> None:
        self.fields, self.accessors = fields, primitives.accessors
        self.attributes, self.targets = fields.child("attributes"), fields.children("targets")
        self.packed: dict[str, NDArray] = {}
        extensions = extensions_of(fields)
        if draco.NAME in extensions:
            corners = self._unpack(primitives.document, extensions[draco.NAME])
        elif "indices" in fields:
            rows = self.accessors.rows(fields.whole("indices"), f"{fields.where}.indices", (1,))
            corners = rows.whole()[:, 0]
        else:
            corners = np.arange(len(self._rows("POSITION")))
        self.faces = _triangles(corners, fields.whole("mode", _TRIANGLES))
        self._check_indices()

    def __contains__(self, name: str) -> bool:
        return name in self.attributes

    def _unpack(self, document: Document, extension: Fields) -> NDArray[np.int64]:
        data = bytes(document.view(extension.whole("bufferView"))[0])
        sizes = [shape_of(document.item("accessors", index))[0]
                 for index in (self.fields.whole("indices"), self.attributes.whole("POSITION"))]  # fmt: skip
        corners, self.packed = draco.unpacked(extension, data, *sizes)
        return corners

    def _check_indices(self) -> None:
        count = len(self._rows("POSITION"))
        if self.faces.size and self.faces.max() >= count:
            raise ValueError(f"{self.fields.where} names vertex {self.faces.max()}; it has {count}: the file is broken")
        for name in self.attributes.values:
            if self._is_read(name) and len(self._rows(name)) != count:
                raise ValueError(f"{self.fields.where} has {count} POSITION and {len(self._rows(name))} {name}")

    def _is_read(self, name: str) -> bool:
        return name.partition("_")[0] in ("POSITION", "NORMAL", "TEXCOORD", "COLOR", "JOINTS", "WEIGHTS")

    def _rows(self, name: str) -> Rows:
        kind, _, _ = name.partition("_")
        widths = {"TEXCOORD": (2,), "COLOR": (3, 4), "JOINTS": (4,), "WEIGHTS": (4,)}.get(kind, (3,))
        use = f"{name} of {self.fields.where}"
        if name not in self.packed:
            return self.accessors.rows(self.attributes.whole(name), use, widths)
        said = self.accessors.document.item("accessors", self.attributes.whole(name))
        rows = Rows(self.packed[name], said.flag("normalized", False), use)
        if rows.width not in widths:
            raise ValueError(f"{use} has {rows.width} numbers a row")
        return rows

    def corners(self, name: str, normalized: bool | None = None) -> NDArray[np.float64]:
        """An attribute [F,3,width]."""
        return self._rows(name).at(self.faces, normalized)

    def moved(self, name: str, weights: list[float], normalized: bool | None = None) -> NDArray[np.float64]:
        """An attribute [F,3,width] with what its morph targets add to it."""
        values = self.corners(name, normalized)
        for target, weight in zip(self.targets, weights, strict=False):
            if weight and name in target:
                rows = self.accessors.rows(target.whole(name), f"{target.where}.{name}", (values.shape[-1],))
                if len(rows) != len(self._rows(name)):
                    raise ValueError(
                        f"{target.where}.{name} has {len(rows)} rows; the mesh has {len(self._rows(name))}"
                    )
                values = values + weight * rows.at(self.faces, normalized)
        return values

    def places(self, place: TexturePlace, weights: list[float]) -> NDArray[np.float64]:
        """Where the corners lie in a texture [F,3,2], v up; at its origin where the mesh has no such coordinates."""
        name = f"TEXCOORD_{place.coordinates}"
        uvs = self.moved(name, weights) if name in self else np.zeros((*self.faces.shape, 2))
        uvs = uvs @ place.turn[:, :2].T + place.turn[:, 2]
        return np.stack([uvs[..., 0], 1 - uvs[..., 1]], -1)

    def bones(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Joints and weights [F,3,K] of the corners."""
        sets = [n for n in range(len(self.attributes.values)) if f"JOINTS_{n}" in self and f"WEIGHTS_{n}" in self]
        joints = [self._rows(f"JOINTS_{n}").whole()[self.faces] for n in sets]
        return np.concatenate(joints, -1), np.concatenate([self.corners(f"WEIGHTS_{n}", True) for n in sets], -1)


def _posed(
    corners: NDArray, normals: NDArray, skinning: Skinning, joints: NDArray[np.int64], weights: NDArray[np.float64]
) -> tuple[NDArray, NDArray]:
    """Corners and normals [F,3,3] where their joints [F,3,K] take them, some thousand triangles at a time."""
    moved = []
    for start in range(0, len(corners), _CHUNK):
        some = slice(start, start + _CHUNK)
        turns = skinning(joints[some], weights[some])
        places = (turns[..., :3, :3] @ corners[some][..., None])[..., 0] + turns[..., :3, 3]
        moved.append((places, turned_normals(normals[some], turns[..., :3, :3])))
    return np.concatenate([places for places, _ in moved]), np.concatenate([normals for _, normals in moved])


def _painted(vertices: _Vertices, material: Material, corners: NDArray, normals: NDArray, weights: list[float]) -> Part:
    """The part that a material makes of corners and normals [F,3,3]."""
    colors = np.broadcast_to(material.factor, (*vertices.faces.shape, 4))
    if "COLOR_0" in vertices:
        painted = vertices.moved("COLOR_0", weights, True).clip(0)
        colors = np.concatenate([colors[..., : painted.shape[-1]] * painted, colors[..., painted.shape[-1] :]], -1)
    nowhere = np.broadcast_to(0.0, (*vertices.faces.shape, 2))
    look = material.look
    return Part(
        corners=corners,
        normals=normals,
        colors=to_srgb(colors[..., :3]),
        alphas=np.broadcast_to(1.0, vertices.faces.shape) if material.solid else colors[..., 3],
        uvs=vertices.places(material.base, weights) if look.texture >= 0 else nowhere,
        emission_uvs=vertices.places(material.emission, weights) if look.emission_texture >= 0 else nowhere,
        look=look,
    )


def _triangles(corners: NDArray[np.int64], mode: int) -> NDArray[np.int64]:
    """Triangles [F,3] of a list of corners; one that is not complete is left out."""
    if mode == _TRIANGLES:
        return corners[: len(corners) // 3 * 3].reshape(-1, 3)
    count = max(len(corners) - 2, 0)
    first = np.arange(count)
    if mode == _FAN:
        return corners[np.stack([first + 1, first + 2, np.zeros_like(first)], -1)]
    odd = first % 2
    return corners[np.stack([first, first + 1 + odd, first + 2 - odd], -1)]
