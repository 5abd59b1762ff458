"""Take a GLB or glTF apart: `Document`, its JSON and the bytes of its buffers."""

from __future__ import annotations

import json
import struct

from recon.meshes.beside import Beside
from recon.meshes.gltf import meshopt
from recon.meshes.gltf.extensions import check_required, extensions_of
from recon.meshes.gltf.fields import Fields, fields_of

_JSON, _BIN = 0x4E4F534A, 0x004E4942


class Document:
    """A glTF 2.0 file.

    Args:
        data: a GLB, or the JSON of a .gltf.
        beside: where its buffers and images lie.

    Raises:
        ValueError: when it is broken, of another version, or needs an extension that is not read.
    """

    def __init__(self, data: bytes, beside: Beside) -> None:
        text, self.binary = _chunks(data) if data[:4] == b"glTF" else (data, None)
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"its JSON is broken: {str(error)[:200]}") from error
        self.root, self.beside = fields_of(values, ""), beside
        asset = self.root.child("asset")
        version = asset.text("version", "2.0")
        needed = asset.text("minVersion", "2.0" if version.startswith("2.") else version)
        if needed != "2.0":
            raise ValueError(f"it is glTF {needed[:20]}; only 2.0 is read: convert it, as `gltf-pipeline` does 1.0")
        check_required(self.root)
        self.buffers: dict[int, memoryview] = {}
        self.unpacked: dict[int, memoryview] = {}
        self.left = meshopt.MAX_BYTES

    def item(self, collection: str, index: int) -> Fields:
        """One object of a list at the root, as of `accessors`."""
        items = self.root.items(collection)
        if index >= len(items):
            raise ValueError(f"{collection}[{index}] is asked for; the file has {len(items)} {collection}")
        return fields_of(items[index], f"{collection}[{index}]")

    def view(self, index: int) -> tuple[memoryview, int | None]:
        """The bytes of a buffer view, and the bytes from one element to the next where it says so."""
        fields = self.item("bufferViews", index)
        packed = {name: found for name, found in extensions_of(fields).items() if name in meshopt.NAMES}
        length, stride = fields.whole("byteLength"), fields.optional("byteStride")
        for name, extension in packed.items():
            if index not in self.unpacked:
                self._count_unpacked(length)
                self.unpacked[index] = meshopt.unpacked(name, extension, self._slice(extension), length)
            return self.unpacked[index], stride
        return self._slice(fields), stride

    def _count_unpacked(self, length: int) -> None:
        self.left -= length
        if self.left < 0:
            raise ValueError(f"its packed buffer views need over {meshopt.MAX_BYTES} bytes: decimate it first")

    def _slice(self, fields: Fields) -> memoryview:
        """The bytes of a buffer that `buffer`, `byteOffset` and `byteLength` name."""
        start, length = fields.whole("byteOffset", 0), fields.whole("byteLength")
        buffer = self._buffer(fields.whole("buffer"))
        if start + length > len(buffer):
            raise ValueError(f"{fields.where} ends at byte {start + length} of a buffer that has {len(buffer)}")
        return buffer[start : start + length]

    def _buffer(self, number: int) -> memoryview:
        if number in self.buffers:
            return self.buffers[number]
        fields = self.item("buffers", number)
        extensions_of(fields)
        if "uri" in fields:
            data = memoryview(self.beside.uri(fields.text("uri", "")))
        elif number == 0 and self.binary is not None:
            data = self.binary
        else:
            raise ValueError(f"{fields.where} has neither an address nor bytes in the file")
        length = fields.whole("byteLength")
        if length > len(data):
            raise ValueError(f"{fields.where} should have {length} bytes, and has {len(data)}: the file is cut off")
        self.buffers[number] = data[:length]
        return self.buffers[number]


def _chunks(data: bytes) -> tuple[bytes, memoryview | None]:
    """The JSON of a GLB, and its binary chunk."""
    if len(data) < 20:
        raise ValueError(f"it has {len(data)} bytes: the file is cut off")
    version, length = struct.unpack_from("<II", data, 4)
    if version != 2:
        raise ValueError(f"it is GLB {version}; only 2 is read: convert it, as `gltf-pipeline` does 1")
    if length > len(data):
        raise ValueError(f"it says that it has {length} bytes, and has {len(data)}: the file is cut off")
    place, found = 12, []
    while place + 8 <= length and len(found) < 2:
        size, kind = struct.unpack_from("<II", data, place)
        if place + 8 + size > len(data):
            raise ValueError("a chunk ends after the file's end: the file is cut off")
        found.append((kind, memoryview(data)[place + 8 : place + 8 + size]))
        place += 8 + size
    if not found or found[0][0] != _JSON:
        raise ValueError("its first chunk is not JSON")
    binary = found[1][1] if len(found) > 1 and found[1][0] == _BIN else None
    return bytes(found[0][1]), binary
