"""Open a binary glTF and write notes, a size or levels of detail into it: `Glb`.

Levels of detail are nodes of MSFT_lod: they share the vertices and the material of the finest level and have triangles
of their own, chosen by meshoptimizer.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon.user_error import UserError

LOD = "MSFT_lod"
_JSON, _BINARY = 0x4E4F534A, 0x004E4942
_HEADER = struct.Struct("<4sII")
_CHUNK = struct.Struct("<II")
_INDEX_TYPES = {5121: np.uint8, 5123: np.uint16, 5125: np.uint32}
LARGEST_ERROR = 0.05
"""How far the surface of a level of detail may move, as a share of the object's size."""


@dataclass(kw_only=True, slots=True)
class Glb:
    """The two chunks of a GLB: `tree`, its JSON, and `binary`, its only buffer."""

    tree: dict[str, Any]
    binary: bytes

    @classmethod
    def parse(cls, data: bytes) -> Glb:
        """The chunks of a GLB; raises ValueError for anything else."""
        if len(data) < 20 or _HEADER.unpack_from(data)[:2] != (b"glTF", 2):
            raise ValueError("the mesh is no binary glTF 2.0; make the asset again")
        length, kind = _CHUNK.unpack_from(data, 12)
        if kind != _JSON or 20 + length > len(data):
            raise ValueError("the mesh is no whole binary glTF: its JSON is cut short; make the asset again")
        tree = json.loads(data[20 : 20 + length])
        return cls(tree=tree, binary=data[28 + length :])

    def to_bytes(self) -> bytes:
        """The file, chunks padded to four bytes."""
        text = json.dumps(self.tree, separators=(",", ":")).encode()
        chunks = [(_JSON, text + b" " * (-len(text) % 4)), (_BINARY, self.binary + b"\0" * (-len(self.binary) % 4))]
        self_size = _HEADER.size + sum(_CHUNK.size + len(data) for _, data in chunks)
        parts = [_CHUNK.pack(len(data), kind) + data for kind, data in chunks]
        return _HEADER.pack(b"glTF", 2, self_size) + b"".join(parts)

    def note(self, notes: Mapping[str, Any]) -> None:
        """Add to the `extras` of the file's `asset`."""
        self.tree["asset"].setdefault("extras", {}).update(notes)

    def scale(self, factor: float) -> None:
        """Multiply the size of the scene by a factor > 0: its roots move below a node with that scale."""
        scene = self.tree["scenes"][self.tree.get("scene", 0)]
        node = {"name": "metres", "scale": [factor] * 3, "children": scene["nodes"]}
        scene["nodes"] = [len(self.tree["nodes"])]
        self.tree["nodes"].append(node)

    def longest_side(self) -> float:
        """Of the box around the positions of all its meshes, in units of the meshes; 0.0 where there are none."""
        boxes = [self.tree["accessors"][part["attributes"]["POSITION"]] for part in self._primitives()]
        if not boxes:
            return 0.0
        low, high = (np.array([box[end] for box in boxes]) for end in ("min", "max"))
        return float((high.max(0) - low.min(0)).max())

    def vertex_colours(self) -> NDArray[np.float32] | None:
        """Linear COLOR_0 [V,3] in [0,1] of its first primitive, bytes or floats; None where it has none."""
        primitive = next(iter(self._primitives()), {"attributes": {}})
        accessor = primitive["attributes"].get("COLOR_0")
        if accessor is None:
            return None
        entry = self.tree["accessors"][accessor]
        kind, scale = {5121: (np.uint8, 255), 5123: (np.uint16, 65535), 5126: (np.float32, 1)}[entry["componentType"]]
        colours = self._read(accessor, kind, int(entry["type"][-1]))[:, :3] / scale
        return np.ascontiguousarray(colours, np.float32)

    def add_levels(self, shares: Sequence[float]) -> None:
        """Add coarser levels with these shares of the triangles, in (0, 1), finest first.

        A file that has levels keeps its own. A level that cannot be coarser than the one before without moving the
        surface by more than LARGEST_ERROR is left out.
        """
        if LOD in self.tree.get("extensionsUsed", []):
            return
        holders = [node for node in self.tree["nodes"] if "mesh" in node]
        for node in holders:
            levels = [level for share in shares if (level := self._level(node["mesh"], share)) is not None]
            meshes, triangles = [], [self._triangles(node["mesh"])]
            for mesh, count in levels:
                if count < triangles[-1]:
                    meshes.append(mesh)
                    triangles.append(count)
            self._join_levels(node, meshes, triangles)

    def _join_levels(self, node: dict[str, Any], meshes: Sequence[dict[str, Any]], triangles: Sequence[int]) -> None:
        ids = []
        for mesh in meshes:
            self.tree["meshes"].append(mesh)
            ids.append(len(self.tree["nodes"]))
            self.tree["nodes"].append({"name": mesh["name"], "mesh": len(self.tree["meshes"]) - 1})
        if ids:
            node.setdefault("extensions", {})[LOD] = {"ids": ids}
            node.setdefault("extras", {})["lod_triangles"] = list(triangles)
            self.tree.setdefault("extensionsUsed", []).append(LOD)

    def _level(self, mesh: int, share: float) -> tuple[dict[str, Any], int] | None:
        """A mesh with a share of the triangles, and how many it has."""
        source, total = self.tree["meshes"][mesh], 0
        parts = []
        for part in source["primitives"]:
            chosen = simplified(self._positions(part), self._indices(part), share)
            total += len(chosen) // 3
            parts.append(part | {"indices": self._add_indices(chosen)})
        return {"name": f"{source.get('name', 'mesh')}_lod{share:g}", "primitives": parts}, total

    def _triangles(self, mesh: int) -> int:
        return sum(len(self._indices(part)) for part in self.tree["meshes"][mesh]["primitives"]) // 3

    def _primitives(self) -> list[dict[str, Any]]:
        return [part for mesh in self.tree.get("meshes", []) for part in mesh["primitives"]]

    def _positions(self, part: Mapping[str, Any]) -> NDArray[np.float32]:
        return self._read(part["attributes"]["POSITION"], np.float32, 3)

    def _indices(self, part: Mapping[str, Any]) -> NDArray[np.uint32]:
        kind = _INDEX_TYPES[self.tree["accessors"][part["indices"]]["componentType"]]
        return self._read(part["indices"], kind, 1)[:, 0].astype(np.uint32)

    def _read(self, accessor: int, kind: Any, width: int) -> NDArray[Any]:
        """An accessor [N,width] without stride, as trimesh writes them."""
        entry = self.tree["accessors"][accessor]
        view = self.tree["bufferViews"][entry["bufferView"]]
        start = view.get("byteOffset", 0) + entry.get("byteOffset", 0)
        return np.frombuffer(self.binary, kind, entry["count"] * width, start).reshape(-1, width)

    def _add_indices(self, indices: NDArray[np.uint32]) -> int:
        """Append indices to the buffer; returns their accessor."""
        self.binary += b"\0" * (-len(self.binary) % 4)
        view = {"buffer": 0, "byteOffset": len(self.binary), "byteLength": indices.nbytes, "target": 34963}
        self.binary += indices.astype("<u4").tobytes()
        self.tree["buffers"][0]["byteLength"] = len(self.binary)
        self.tree["bufferViews"].append(view)
        self.tree["accessors"].append(
            {
                "bufferView": len(self.tree["bufferViews"]) - 1,
                "componentType": 5125,
                "count": len(indices),
                "type": "SCALAR",
                "min": [int(indices.min())],
                "max": [int(indices.max())],
            }
        )
        return len(self.tree["accessors"]) - 1


def require_meshoptimizer() -> None:
    """Raise UserError, in one sentence, where meshoptimizer is not installed."""
    try:
        import meshoptimizer  # noqa: F401
    except ImportError as error:
        raise UserError(
            'meshoptimizer is not installed: `pip install -c constraints.txt ".[exports]"` brings it'
        ) from error


def simplified(positions: NDArray[np.float32], indices: NDArray[np.uint32], share: float) -> NDArray[np.uint32]:
    """Indices [3F] of about a share of the triangles over the same vertices, by edge collapses."""
    import meshoptimizer

    chosen = np.zeros_like(indices)
    count = meshoptimizer.simplify(
        chosen,
        np.ascontiguousarray(indices),
        np.ascontiguousarray(positions),
        target_index_count=max(3, int(len(indices) // 3 * share) * 3),
        target_error=LARGEST_ERROR,
    )
    return chosen[:count]
