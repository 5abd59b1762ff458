"""Place the nodes of a glTF: `Nodes`, which are seen and where they stand."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from recon.meshes.gltf.document import Document
from recon.meshes.gltf.extensions import extensions_of
from recon.meshes.gltf.fields import Fields

MAX_NODES = 100_000
_IDENTITY = (1.0, 0, 0, 0, 0, 1.0, 0, 0, 0, 0, 1.0, 0, 0, 0, 0, 1.0)


class Nodes:
    """The nodes of a file, which must form trees.

    Raises:
        ValueError: when there are over 100,000, or one is the child of two.
    """

    def __init__(self, document: Document) -> None:
        self.document = document
        self.count = len(document.root.items("nodes"))
        if self.count > MAX_NODES:
            raise ValueError(f"asset's scene has over {MAX_NODES} nodes: flatten it first")
        self.parents: dict[int, int] = {}
        for node in range(self.count):
            for child in self.fields(node).wholes("children"):
                if child >= self.count:
                    raise ValueError(f"nodes[{node}] has child {child}; the file has {self.count} nodes")
                if child in self.parents:
                    raise ValueError(f"nodes[{child}] is the child of two nodes; a scene must be a tree")
                self.parents[child] = node
        self.worlds: dict[int, NDArray[np.float64]] = {}

    def fields(self, node: int) -> Fields:
        """A node's JSON."""
        return self.document.item("nodes", node)

    def visible(self) -> Iterator[int]:
        """The nodes of the default scene: that which the file names, else its first, else every node."""
        waiting, seen = self._roots()[::-1], set()
        while waiting:
            node = waiting.pop()
            fields = self.fields(node)
            if node in seen:
                raise ValueError(f"{fields.where} is reached twice, or holds itself; a scene must be a tree")
            seen.add(node)
            visibility = extensions_of(fields).get("KHR_node_visibility")
            if visibility is None or visibility.flag("visible", True):
                yield node
                waiting += fields.wholes("children")[::-1]

    def _roots(self) -> list[int]:
        root = self.document.root
        if not root.items("scenes"):
            return [node for node in range(self.count) if node not in self.parents]
        scene = self.document.item("scenes", root.whole("scene", 0))
        extensions_of(scene)
        return scene.wholes("nodes")

    def world(self, node: int) -> NDArray[np.float64]:
        """Where a node stands [4,4]."""
        path = []
        while node not in self.worlds:
            path.append(node)
            if node not in self.parents:
                break
            if len(path) > self.count:
                raise ValueError(f"nodes[{node}] holds itself, a cycle; a scene must be a tree")
            node = self.parents[node]
        world = self.worlds.get(node, np.eye(4))
        for node in reversed(path):
            world = self.worlds[node] = world @ placement(self.fields(node))
        return world


def placement(fields: Fields) -> NDArray[np.float64]:
    """A node's map [4,4] to its parent's space: its matrix, or translation, rotation and scale."""
    if "matrix" in fields:
        return np.array(fields.numbers("matrix", _IDENTITY)).reshape(4, 4).T
    turn = np.eye(4)
    quaternion = np.array(fields.numbers("rotation", (0.0, 0.0, 0.0, 1.0)))
    turn[:3, :3] = rotation(quaternion, f"{fields.where}.rotation") * fields.numbers("scale", (1.0, 1.0, 1.0))
    turn[:3, 3] = fields.numbers("translation", (0.0, 0.0, 0.0))
    return turn


def rotation(quaternions: NDArray[np.float64], where: str) -> NDArray[np.float64]:
    """Rotations [...,3,3] of quaternions [...,4] in the order x, y, z, w; ValueError for one of length 0."""
    lengths = np.linalg.norm(quaternions, axis=-1, keepdims=True)
    if not (lengths > 0).all():
        raise ValueError(f"{where} is a quaternion of length 0")
    x, y, z, w = np.moveaxis(quaternions / lengths, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2)
