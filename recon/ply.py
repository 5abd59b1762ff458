"""The 3D Gaussian splatting PLY: little-endian float32, one `vertex` element, read by all splat viewers.

Properties: ``x y z nx ny nz f_dc_0..2 f_rest_0..(3(K-1)-1) opacity scale_0..2 rot_0..3`` with opacity as logit,
scale as natural logarithm, the quaternion wxyz of length 1, and f_rest channel-major.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from recon.gaussians import MAX_SH_DEGREE, Gaussians

_HEADER = "ply\nformat binary_little_endian 1.0\nelement vertex {}\n{}end_header\n"


def properties(rest: int) -> list[str]:
    """The property names, in order, with `rest` higher coefficients a channel."""
    names = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2"]
    names += [f"f_rest_{i}" for i in range(3 * rest)]
    return [*names, "opacity", "scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]


def write_ply(path: str | Path, gaussians: Gaussians) -> None:
    """Writes the Gaussians; normals are zero.

    Raises:
        ValueError: if a value is not finite or a quaternion has no length; nothing is written then.
    """
    count = len(gaussians)
    quats = gaussians.unit_quats
    if count and not bool((quats.norm(dim=-1) > 0.5).all()):
        bad = int((quats.norm(dim=-1) <= 0.5).sum())
        raise ValueError(f"{bad} of {count} quaternions have length 0; give them a direction, such as (1, 0, 0, 0)")
    parts = [
        gaussians.means,
        torch.zeros_like(gaussians.means),
        gaussians.sh0[:, 0],
        gaussians.shN.transpose(1, 2).flatten(1),
        gaussians.opacities[:, None],
        gaussians.scales,
        quats,
    ]
    table = torch.cat([part.detach().cpu() for part in parts], 1).numpy().astype("<f4")
    names = properties(gaussians.shN.shape[1])
    finite = np.isfinite(table)
    if not finite.all():
        bad_names = ", ".join(name for i, name in enumerate(names) if not finite[:, i].all())
        raise ValueError(f"{bad_names} hold values that are not finite; remove those Gaussians before writing {path}")
    header = _HEADER.format(count, "".join(f"property float {name}\n" for name in names))
    Path(path).write_bytes(header.encode("ascii") + table.tobytes())


def read_ply(path: str | Path) -> Gaussians:
    """Reads what `write_ply` and other 3DGS programs write, whatever the order of the float properties.

    Raises:
        ValueError: if the file is no binary little-endian 3DGS PLY, is cut short, or holds values that are not finite.
    """
    return parse_ply(Path(path).read_bytes(), str(path))


def parse_ply(data: bytes, path: str = "asset.ply") -> Gaussians:
    """`read_ply` on bytes; `path` names them in errors."""
    names, count, start = _read_header(data, path)
    higher = sum(name.startswith("f_rest_") for name in names)
    if higher not in {3 * ((degree + 1) ** 2 - 1) for degree in range(MAX_SH_DEGREE + 1)}:
        raise ValueError(f"{path} has {higher} f_rest properties; spherical harmonics have 0, 9, 24 or 45")
    missing = sorted(set(properties(0)) - {"nx", "ny", "nz"} - set(names))
    if missing:
        raise ValueError(f"{path} lacks the properties {', '.join(missing)}; it is no 3D Gaussian splatting PLY")
    wanted = 4 * count * len(names)
    if len(data) - start < wanted:
        raise ValueError(f"{path} is cut short: {len(data) - start} bytes of {wanted} after its header; write it again")
    table = np.frombuffer(data, "<f4", count * len(names), start).reshape(count, len(names)).astype(np.float32)
    column = {name: torch.from_numpy(table[:, i].copy()) for i, name in enumerate(names)}
    rest = higher // 3

    def columns(prefix: str, width: int) -> torch.Tensor:
        return torch.stack([column[f"{prefix}_{i}"] for i in range(width)], 1) if width else torch.zeros(count, 0)

    gaussians = Gaussians(
        means=torch.stack([column["x"], column["y"], column["z"]], 1),
        quats=columns("rot", 4),
        scales=columns("scale", 3),
        opacities=column["opacity"],
        sh0=columns("f_dc", 3)[:, None],
        shN=columns("f_rest", 3 * rest).reshape(count, 3, rest).transpose(1, 2).contiguous(),
    )
    if not np.isfinite(table).all():
        raise ValueError(f"{path} holds {int((~np.isfinite(table)).sum())} values that are not finite")
    return gaussians


def _read_header(data: bytes, path: str) -> tuple[list[str], int, int]:
    """Property names, number of vertices and the byte where they begin."""
    end = data.find(b"end_header\n")
    if not data.startswith(b"ply\n") or end < 0:
        raise ValueError(f"{path} is no PLY file: it does not begin with a PLY header")
    names, count, known = [], None, False
    for line in data[:end].decode("ascii", "replace").splitlines()[1:]:
        kind, *words = line.split() or [""]
        if kind == "format":
            if words != ["binary_little_endian", "1.0"]:
                raise ValueError(f"{path} has {line!r}; only 'format binary_little_endian 1.0' is read")
            known = True
        elif kind == "element":
            if count is not None or len(words) != 2 or words[0] != "vertex" or not words[1].isdecimal():
                raise ValueError(f"{path} has {line!r}; only one 'element vertex N' is read, N >= 0")
            count = int(words[1])
        elif kind == "property":
            if len(words) != 2 or words[0] not in ("float", "float32") or words[1] in names:
                raise ValueError(f"{path} has {line!r}; only float properties are read, each once")
            names.append(words[1])
    if not known or count is None:
        raise ValueError(f"{path} needs the lines 'format binary_little_endian 1.0' and 'element vertex N'")
    return names, count, end + len(b"end_header\n")
