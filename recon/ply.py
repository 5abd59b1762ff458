"""Write and read the 3D Gaussian splatting PLY: `write_ply`, `read_ply`.

Written is what all splat viewers read: little-endian float32, one `vertex` element. Properties:
``x y z nx ny nz f_dc_0..2 f_rest_0..(3(K-1)-1) opacity scale_0..2 rot_0..3`` with opacity as logit, scale as natural
logarithm, the quaternion wxyz of length 1, and f_rest channel-major.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch

from recon.gaussians import MAX_SH_DEGREE, Gaussians
from recon.ply_header import Header, read_header

log = logging.getLogger("recon")
MAX_LOGIT = 20.0
"""Opacity that float32 cannot tell from 1."""
MIN_LOG_SCALE = -30.0
"""Standard deviation of what is flat."""
_NORMALS = ("nx", "ny", "nz")

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
    """Reads what `write_ply` and other 3DGS programs write.

    Text and both byte orders, properties of any type in any order, further properties and elements (which are left
    out). An opacity of +-inf is +-MAX_LOGIT, a scale of -inf MIN_LOG_SCALE, a quaternion of length 0 (1, 0, 0, 0).

    Raises:
        ValueError: if the file is no 3DGS PLY, with the command that converts it where there is one, is cut short, or
            holds other values that are not finite.
    """
    return parse_ply(Path(path).read_bytes(), str(path))


def parse_ply(data: bytes, path: str = "asset.ply") -> Gaussians:
    """`read_ply` on bytes; `path` names them in errors."""
    header = read_header(data, path)
    names = list(header.elements["vertex"].properties) if "vertex" in header.elements else []
    _check_kind(header, names, path)
    higher = sum(name.startswith("f_rest_") for name in names)
    if higher not in {3 * ((degree + 1) ** 2 - 1) for degree in range(MAX_SH_DEGREE + 1)}:
        raise ValueError(f"{path} has {higher} f_rest properties; spherical harmonics have 0, 9, 24 or 45")
    rest = higher // 3
    wanted = [name for name in properties(rest) if name not in _NORMALS]
    if missing := sorted(set(wanted) - set(names)):
        raise ValueError(f"{path} lacks the properties {', '.join(missing)}; it is no 3D Gaussian splatting PLY")
    table = header.table(data, "vertex", path)
    with np.errstate(over="ignore"):  # doubles that are no float32 are infinite, and refused as such
        column = {name: torch.from_numpy(table[name].astype(np.float32)) for name in wanted}
    column["opacity"] = column["opacity"].where(~column["opacity"].isinf(), column["opacity"].sign() * MAX_LOGIT)
    for name in ("scale_0", "scale_1", "scale_2"):
        column[name] = column[name].where(column[name] != -torch.inf, torch.tensor(MIN_LOG_SCALE))
    if bad := sum(int((~values.isfinite()).sum()) for values in column.values()):
        raise ValueError(f"{path} holds {bad} values that are not finite")

    def columns(prefix: str, width: int) -> torch.Tensor:
        parts = [column[f"{prefix}_{i}"] for i in range(width)]
        return torch.stack(parts, 1) if width else torch.zeros(len(table), 0)

    return Gaussians(
        means=torch.stack([column["x"], column["y"], column["z"]], 1),
        quats=_directed(columns("rot", 4), path),
        scales=columns("scale", 3),
        opacities=column["opacity"],
        sh0=columns("f_dc", 3)[:, None],
        shN=columns("f_rest", 3 * rest).reshape(len(table), 3, rest).transpose(1, 2).contiguous(),
    )


def has_gaussians(header: Header) -> bool:
    """Whether the vertices of a PLY are Gaussians, whatever other elements it has."""
    return "vertex" in header.elements and {"scale_0", "rot_0", "f_dc_0"} <= set(header.elements["vertex"].properties)


def _check_kind(header: Header, names: list[str], path: str) -> None:
    """Raise ValueError, with the command that converts it, for a PLY of another kind."""
    own = "`python -m recon.ply_conversion IN.ply OUT.ply`"
    if "packed_position" in names:
        raise ValueError(f"{path} is a compressed PLY of SuperSplat; convert it with `splat-transform IN.ply OUT.ply`")
    if header.count("face") and not has_gaussians(header):
        raise ValueError(f"{path} is a mesh of {header.count('face')} faces, no Gaussians; `im3d render` and `im3d "
                         "evaluate` read it as a mesh")  # fmt: skip
    if {"scale_0", "scale_1", "rot_0"} <= set(names) and "scale_2" not in names:
        raise ValueError(f"{path} holds 2D Gaussians (2DGS: scale_2 is missing); convert it with {own}")
    if {"x", "y", "z"} <= set(names) and not {"scale_0", "rot_0", "f_dc_0"} & set(names):
        raise ValueError(
            f"{path} is a point cloud of {header.count('vertex')} points, no Gaussians; convert it with {own}"
        )


def _directed(quats: torch.Tensor, path: str) -> torch.Tensor:
    """Quaternions [N,4], those of length 0 as (1, 0, 0, 0); these are counted in the log."""
    nowhere = quats.norm(dim=1) == 0
    if bad := int(nowhere.sum()):
        log.warning(
            "%s: %d of %d quaternions have length 0; these Gaussians are taken as unturned", path, bad, len(quats)
        )
        quats[nowhere] = torch.tensor([1.0, 0, 0, 0])
    return quats
