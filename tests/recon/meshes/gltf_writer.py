"""Small GLB files, written number by number."""

from __future__ import annotations

import io
import json
import struct
from typing import Any

import numpy as np
from PIL import Image

from recon.meshes.load import load_mesh, render_turntable

CODES = {"i1": 5120, "u1": 5121, "i2": 5122, "u2": 5123, "u4": 5125, "f4": 5126}
TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}
QUAD = [[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]
CORNERS = [[0, 1], [1, 1], [1, 0], [0, 0]]
"""Of QUAD in a texture, v down."""
TWO = [0, 1, 2, 0, 2, 3]
RGBY = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 0]]], np.uint8)
"""A texture: red and green above, blue and yellow below."""


def png(pixels: np.ndarray, format: str = "PNG") -> bytes:
    """An encoded picture, lossless where the format can be."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format, **({"lossless": True} if format == "WEBP" else {}))
    return stream.getvalue()


class Gltf:
    """A glTF under construction; `root` is its JSON."""

    def __init__(self, **root: Any) -> None:
        self.root = {"asset": {"version": "2.0"}} | root
        self.bytes = bytearray()

    def add(self, collection: str, item: dict[str, Any]) -> int:
        self.root.setdefault(collection, []).append(item)
        return len(self.root[collection]) - 1

    def view(self, data: bytes, **fields: Any) -> int:
        self.bytes += b"\0" * (-len(self.bytes) % 4)
        start = len(self.bytes)
        self.bytes += data
        return self.add("bufferViews", {"buffer": 0, "byteOffset": start, "byteLength": len(data)} | fields)

    def accessor(self, values: Any, kind: str = "f4", stride: int | None = None, **fields: Any) -> int:
        """Rows of numbers, or one list of them; `stride`: bytes from one row to the next, filled with 0xA5."""
        rows = np.asarray(values, "<" + kind)
        rows = rows.reshape(len(rows), -1)
        size = rows.itemsize * rows.shape[1]
        data = b"".join(row.tobytes() + b"\xa5" * ((stride or size) - size) for row in rows)
        view = self.view(data, **({"byteStride": stride} if stride else {}))
        shape = {"componentType": CODES[kind], "count": len(rows), "type": TYPES[rows.shape[1]]}
        return self.add("accessors", {"bufferView": view} | shape | fields)

    def texture(self, pixels: np.ndarray, format: str = "PNG", **sampler: Any) -> int:
        image = self.add(
            "images", {"bufferView": self.view(png(pixels, format)), "mimeType": f"image/{format.lower()}"}
        )
        return self.add("textures", {"source": image, "sampler": self.add("samplers", sampler)})

    def material(self, color: Any = None, texture: Any = None, **fields: Any) -> int:
        """Unlit unless `extensions` say otherwise."""
        surface = ({} if color is None else {"baseColorFactor": color}) | (
            {} if texture is None else {"baseColorTexture": texture}
        )
        return self.add(
            "materials", {"pbrMetallicRoughness": surface, "extensions": {"KHR_materials_unlit": {}}} | fields
        )

    def mesh(self, *primitives: dict[str, Any], **fields: Any) -> int:
        return self.add("meshes", {"primitives": list(primitives)} | fields)

    def quad(self, material: int | None = None, **attributes: int) -> dict[str, Any]:
        """A primitive of two triangles, two units wide; `attributes` replace its own."""
        own = {"POSITION": self.accessor(QUAD)} if "POSITION" not in attributes else {}
        own |= {"TEXCOORD_0": self.accessor(CORNERS)} if "TEXCOORD_0" not in attributes else {}
        primitive = {"attributes": own | attributes, "indices": self.accessor(TWO, "u2")}
        return primitive | ({} if material is None else {"material": material})

    def draw(self, *primitives: dict[str, Any], **node: Any) -> Gltf:
        """Put a mesh of these primitives into the scene."""
        number = self.add("nodes", {"mesh": self.mesh(*primitives)} | node)
        self.root.setdefault("scenes", [{"nodes": []}])[0]["nodes"].append(number)
        return self

    def glb(self) -> bytes:
        root = dict(self.root)
        if self.bytes:
            root = {"buffers": [{"byteLength": len(self.bytes)}, *root.get("buffers", [])]} | {
                key: value for key, value in root.items() if key != "buffers"
            }
        text = json.dumps(root).encode()
        text += b" " * (-len(text) % 4)
        body = bytes(self.bytes) + b"\0" * (-len(self.bytes) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text
        chunks += struct.pack("<I4s", len(body), b"BIN\0") + body if body else b""
        return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def front(data: bytes, file_type: str = "glb", **arguments: Any) -> np.ndarray:
    """The asset from the front, uint8 [64,64,4]."""
    return render_turntable(load_mesh(data, file_type, **arguments), 0.0, 64, 1)[0]


def quarters(view: np.ndarray) -> list[tuple[int, ...]]:
    """RGBA of a front view in the middle of the quad's quarters: left and right above, left and right below."""
    return [tuple(int(x) for x in view[row, column]) for row in (22, 42) for column in (22, 42)]


def letters(view: np.ndarray) -> str:
    """`quarters` as letters: R, G, B, Y, W, K, - where nothing is, ? for another colour."""
    names = {(1, 0, 0): "R", (0, 1, 0): "G", (0, 0, 1): "B", (1, 1, 0): "Y", (1, 1, 1): "W", (0, 0, 0): "K"}
    found = [(tuple(channel / 255 for channel in color), alpha) for *color, alpha in quarters(view)]
    return "".join(names.get(color, "?") if alpha else "-" for color, alpha in found)
