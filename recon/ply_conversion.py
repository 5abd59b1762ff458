"""Make 3D Gaussians of other PLY files: `converted`, and `python -m recon.ply_conversion IN.ply OUT.ply`.

2D Gaussians (2DGS) become flat 3D ones. Points become round, opaque Gaussians as 3DGS starts from points: as wide as
the mean distance to the three nearest others.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from recon.gaussians import Gaussians
from recon.ply import MAX_LOGIT, MIN_LOG_SCALE, parse_ply, write_ply
from recon.ply_header import Header, read_header
from recon.rasterize.spherical_harmonics import C0

NEIGHBOURS = 3
GREY = 128
"""Of points without colours."""


def converted(data: bytes, path: str = "in.ply") -> Gaussians:
    """3D Gaussians of the bytes of a PLY of 2D Gaussians or points.

    Raises:
        ValueError: if it holds neither; `path` names it.
    """
    header = read_header(data, path)
    names = header.elements["vertex"].properties if "vertex" in header.elements else {}
    if {"scale_0", "scale_1", "rot_0"} <= set(names) and "scale_2" not in names:
        return _of_discs(header, data, path)
    if {"x", "y", "z"} <= set(names) and not header.count("face"):
        return _of_points(header, data, path)
    raise ValueError(f"{path} holds neither 2D Gaussians nor points")


def _of_discs(header: Header, data: bytes, path: str) -> Gaussians:
    """The same table with a column scale_2, read as 3D Gaussians."""
    table = header.table(data, "vertex", path)
    wider = np.zeros(len(table), [*((name, "<f4") for name in table.dtype.names or ()), ("scale_2", "<f4")])
    for name in table.dtype.names or ():
        wider[name] = table[name]
    wider["scale_2"] = MIN_LOG_SCALE
    lines = "".join(f"property float {name}\n" for name in wider.dtype.names or ())
    text = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(wider)}\n{lines}end_header\n"
    return parse_ply(text.encode() + wider.tobytes(), path)


def _of_points(header: Header, data: bytes, path: str) -> Gaussians:
    from scipy.spatial import KDTree

    table = header.table(data, "vertex", path)
    means = np.stack([table[axis] for axis in "xyz"], 1).astype(np.float32)
    if len(means) <= NEIGHBOURS or not np.isfinite(means).all():
        raise ValueError(f"{path} holds {len(means)} points; give more than {NEIGHBOURS}, all finite")
    colours = [table[name] if name in (table.dtype.names or ()) else np.full(len(table), GREY) for name in _COLOURS]
    whole = all(column.dtype.kind in "iu" for column in colours)
    rgb = np.stack(colours, 1).astype(np.float32) / (255 if whole else 1)
    distances = KDTree(means).query(means, NEIGHBOURS + 1)[0][:, 1:].mean(1)
    count = len(means)
    return Gaussians(
        means=torch.from_numpy(means),
        quats=torch.tensor([1.0, 0, 0, 0]).repeat(count, 1),
        scales=torch.from_numpy(np.log(np.maximum(distances, 1e-7))).float()[:, None].repeat(1, 3),
        opacities=torch.full((count,), MAX_LOGIT),
        sh0=torch.from_numpy((rgb - 0.5) / C0).float()[:, None],
        shN=torch.zeros(count, 0, 3),
    )


_COLOURS = ("red", "green", "blue")


def main(argv: list[str] | None = None) -> int:
    """Convert a file; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    if len(arguments) != 2:
        print("usage: python -m recon.ply_conversion IN.ply OUT.ply", file=sys.stderr)
        return 2
    source, target = map(Path, arguments)
    try:
        gaussians = converted(source.read_bytes(), str(source))
        write_ply(target, gaussians)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{len(gaussians)} Gaussians: {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
