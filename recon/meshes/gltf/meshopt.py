"""Unpack the buffer views of EXT_meshopt_compression with meshoptimizer's decoder: `unpacked`."""

from __future__ import annotations

from typing import Any

from recon.meshes.gltf.extensions import advice_for
from recon.meshes.gltf.fields import Fields

NAMES = ("EXT_meshopt_compression", "KHR_meshopt_compression")
MAX_BYTES = 512 << 20
"""Of all views of a file together, unpacked."""

_MODES = ("ATTRIBUTES", "TRIANGLES", "INDICES")
_FILTERS = ("NONE", "OCTAHEDRAL", "QUATERNION", "EXPONENTIAL", "COLOR")


def unpacked(name: str, extension: Fields, data: memoryview, length: int) -> memoryview:
    """The rows of a view.

    Args:
        name: of the extension, one of `NAMES`. extension: of the view. data: the bytes that it names.
        length: bytes that the view says it has once it is unpacked.

    Raises:
        ValueError: when they are broken, of another length, or packed in a way that does not exist.
    """
    import meshopt

    unpack: Any = meshopt.decode_gltf_buffer
    count, stride = extension.whole("count"), extension.whole("byteStride")
    mode, restored = extension.text("mode", ""), extension.text("filter", "NONE")
    for key, value, known in (("mode", mode, _MODES), ("filter", restored, _FILTERS)):
        if value not in known:
            raise ValueError(f"{extension.where}.{key} is {value[:20]!r}. Available: {', '.join(known)}")
    if count * stride != length:
        raise ValueError(f"{extension.where} packs {count} rows of {stride} bytes; its view has {length} bytes")
    try:
        rows = unpack(bytes(data), count, stride, mode, restored) if count else b""
    except ValueError as error:
        raise ValueError(f"{extension.where} holds no rows that can be unpacked ({error}); "
                         f"{advice_for(name)}") from error  # fmt: skip
    return memoryview(bytes(rows))
