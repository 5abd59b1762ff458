"""Put what one file draws together: `Part`, triangles that share a material, and `mesh_of` all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from recon.meshes.mesh import Mesh
from recon.meshes.textures import Textures
from recon.meshes.z_buffer import greatest_alpha

MAX_COORDINATE = 1e15
_BLEND_SHARE = 0.5
_LEAST_ALPHA = 1e-4
"""Below it nothing is seen of what is see-through."""


@dataclass(kw_only=True, slots=True)
class Look:
    """How a part's surface looks; numbers of textures are those of `Textures`, -1 for none."""

    texture: int = -1
    emission: NDArray = field(default_factory=lambda: np.zeros(3))
    """Linear light [3] that is added."""
    emission_texture: int = -1
    cutoff: float = 0.0
    """Alpha below which a sample is left out; 0: none is."""
    blended: bool = False
    """Whether the file means it see-through. It is drawn solid, with holes below half of its greatest alpha."""
    lit: bool = True


@dataclass(kw_only=True, slots=True)
class Part:
    """Triangles in the asset's space: `corners`, unit `normals` and sRGB `colors` [F,3,3], `alphas` [F,3], and places
    in the textures, v up, [F,3,2]."""

    corners: NDArray[np.float64]
    normals: NDArray[np.float64]
    colors: NDArray
    alphas: NDArray
    uvs: NDArray
    emission_uvs: NDArray
    look: Look


def mesh_of(parts: Sequence[Part], textures: Textures) -> tuple[NDArray[np.float64], Mesh]:
    """All parts as one mesh, and its corners [F,3,3] before they are rounded to single precision.

    Raises:
        ValueError: when there is no triangle, a corner is not finite or reaches beyond 1e15, or a colour or place in
            a texture is not finite.
    """
    if not sum(len(part.corners) for part in parts):
        raise ValueError("asset has no triangles to render")
    texels, rows = textures.arrays()
    corners = np.concatenate([part.corners for part in parts])
    if not np.isfinite(corners).all():
        raise ValueError("asset has non-finite vertices")
    reach = float(np.abs(corners).max())
    if reach > MAX_COORDINATE:
        raise ValueError(f"asset has a coordinate of {reach:.3g}; the limit is {MAX_COORDINATE:g}: scale it down")
    cutoffs = [_cutoff(part, texels, rows) for part in parts]
    per_corner = {name: _single([getattr(part, name) for part in parts], name)
                  for name in ("normals", "colors", "alphas", "uvs", "emission_uvs")}  # fmt: skip
    mesh = Mesh(
        corners=corners.astype(np.float32),
        texture_ids=_each([part.look.texture for part in parts], parts, np.int32),
        texels=texels,
        textures=rows,
        cutoffs=_each(cutoffs, parts, np.float32),
        lit=_each([part.look.lit for part in parts], parts, np.bool_),
        emissions=_each([part.look.emission for part in parts], parts, np.float32),
        emission_ids=_each([part.look.emission_texture for part in parts], parts, np.int32),
        **per_corner,
    )
    return corners, mesh


def to_srgb(linear: NDArray) -> NDArray:
    """Linear colours of 0 or more as sRGB."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)


def unit_colors(values: NDArray) -> NDArray[np.float64]:
    """Colours of a text format in [0, 1]: those above 2 are meant in [0, 255]; slightly above 1 is rounding."""
    most = values.max() if values.size else 0.0
    return (values / (255.0 if most > 2 else 1.0)).clip(0, 1)


def flat_normals(corners: NDArray) -> NDArray[np.float64]:
    """Unit normals [F,3,3] of the triangles' planes."""
    faces = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(faces, axis=-1, keepdims=True)
    return np.repeat((faces / np.where(lengths > 0, lengths, 1))[:, None], 3, 1)


def turned_normals(normals: NDArray, turn: NDArray) -> NDArray[np.float64]:
    """Unit normals [...,3] after linear maps [3,3], or one for each [...,3,3], of what they stand on."""
    rows = [np.cross(turn[..., (k + 1) % 3, :], turn[..., (k + 2) % 3, :]) for k in range(3)]
    moved = np.stack([(normals * row).sum(-1) for row in rows], -1)
    lengths = np.linalg.norm(moved, axis=-1, keepdims=True)
    return moved / np.where(lengths > 0, lengths, 1)


def _cutoff(part: Part, texels: NDArray[np.uint8], rows: NDArray[np.int64]) -> float:
    if not part.look.blended:
        return part.look.cutoff
    greatest = greatest_alpha(part.uvs.astype(np.float32), part.alphas.astype(np.float32), part.look.texture, texels,
                              rows)  # fmt: skip
    return max(_BLEND_SHARE * float(greatest), _LEAST_ALPHA)


def _single(columns: list[NDArray], name: str) -> NDArray[np.float32]:
    together = np.concatenate(columns).astype(np.float32)
    if not np.isfinite(together).all():
        raise ValueError(f"asset has {name.replace('_', ' ')} that are no finite numbers")
    return together


def _each(values: list, parts: Sequence[Part], kind: type) -> NDArray:
    return np.repeat(np.array(values, kind), [len(part.corners) for part in parts], axis=0)
