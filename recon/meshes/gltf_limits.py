"""What a glTF asset would unfold into and how it is lit, read from its JSON before any array is made of it."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MAX_FACES = 2_000_000
MAX_ELEMENTS = 3 * MAX_FACES
MAX_NODES = 100_000
_TRIANGLES, _STRIP, _FAN = 4, 5, 6


def check_gltf(source: Path | bytes) -> None:
    """Refuse a GLB or glTF that a few bytes unfold into more than the limits: instances, accessors, cycles.

    Args:
        source: a path, or the bytes of a GLB.

    Raises:
        ValueError: when the JSON is unreadable, an accessor has over 6 million elements, the scene visits over
            100,000 nodes (a cycle does), or its instances have over 2 million faces together.
    """
    document = _document(source)
    try:
        for index, accessor in enumerate(document.get("accessors", [])):
            if accessor["count"] > MAX_ELEMENTS:
                raise ValueError(f"accessor {index} has {accessor['count']} elements; the limit is {MAX_ELEMENTS}")
        faces = [_num_faces(mesh, document) for mesh in document.get("meshes", [])]
        total = 0
        for mesh in _visited(document):
            total += faces[mesh]
            if total > MAX_FACES:
                raise ValueError(f"asset has over {MAX_FACES} faces with its instances: decimate it first")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ValueError(f"cannot read this glTF: {type(error).__name__}: {error}") from error


def unlit_materials(source: Path | bytes) -> set[str]:
    """Names of the materials whose colours are final (KHR_materials_unlit); one without a name is lit.

    Raises:
        ValueError: when the JSON or its list of materials is unreadable.
    """
    lit: set[str | None] = {None}
    unlit: set[str | None] = set()
    try:
        for material in _document(source).get("materials", []):
            is_unlit = "KHR_materials_unlit" in material.get("extensions", {})
            (unlit if is_unlit else lit).add(material.get("name"))
    except (TypeError, AttributeError) as error:
        raise ValueError(f"cannot read this glTF: {type(error).__name__}: {error}") from error
    return {name for name in unlit - lit if name}


def _document(source: Path | bytes) -> dict[str, Any]:
    data = source if isinstance(source, bytes) else source.read_bytes()
    try:
        if data[:4] == b"glTF":
            length, kind = struct.unpack_from("<II", data, 12)
            if kind != 0x4E4F534A:
                raise ValueError("the first chunk is not JSON")
            data = data[20 : 20 + length]
        document = json.loads(data)
        if not isinstance(document, dict):
            raise ValueError("its JSON is not an object")
    except (ValueError, struct.error, RecursionError) as error:
        raise ValueError(f"cannot read this glTF: {type(error).__name__}: {error}") from error
    return document


def _num_faces(mesh: dict[str, Any], document: dict[str, Any]) -> int:
    total = 0
    for primitive in mesh["primitives"]:
        accessor = primitive.get("indices", primitive["attributes"].get("POSITION"))
        count = 0 if accessor is None else document["accessors"][accessor]["count"]
        mode = primitive.get("mode", _TRIANGLES)
        total += count // 3 if mode == _TRIANGLES else max(count - 2, 0) if mode in (_STRIP, _FAN) else 0
    return total


def _visited(document: dict[str, Any]) -> Iterator[int]:
    """The mesh of every node that the scenes reach, once for each way to it."""
    nodes = document.get("nodes", [])
    roots = [node for scene in document.get("scenes", []) for node in scene.get("nodes", [])]
    waiting = roots or list(range(len(nodes)))
    visits = 0
    while waiting:
        visits += 1
        if visits + len(waiting) > MAX_NODES:
            raise ValueError(f"asset's scene has over {MAX_NODES} nodes, or a cycle: flatten it first")
        node = nodes[waiting.pop()]
        waiting += node.get("children", [])
        if "mesh" in node:
            yield node["mesh"]
