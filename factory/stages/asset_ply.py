"""Write Gaussians as the bytes of a PLY, and read them: `ply_bytes`, `gaussians_of`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any


def ply_bytes(gaussians: Any) -> bytes:
    """Gaussians as the bytes of a 3DGS PLY; raises ValueError where a value is not finite."""
    from recon.ply import write_ply

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "asset.ply")
        write_ply(path, gaussians)
        return path.read_bytes()


def gaussians_of(ply: bytes | memoryview, name: str = "asset.ply") -> Any:
    """The Gaussians of a 3DGS PLY; `name` is what errors call it. ValueError where it cannot be read, or holds none."""
    from recon.ply import parse_ply

    gaussians = parse_ply(bytes(ply), name)
    if not len(gaussians):
        raise ValueError(f"{name} holds no Gaussians; there is nothing to show")
    return gaussians
