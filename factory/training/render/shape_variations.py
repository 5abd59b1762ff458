"""Vary the shapes to train on, by bending meshes and setting them beside others: `warped`, `beside`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recon.meshes.mesh import Mesh, joined, normalised

_STEP = 1e-3
_GAP = 0.05


@dataclass(kw_only=True, slots=True, frozen=True)
class Warp:
    """A change of shape: first longer or shorter along the axes, then bent with the height."""

    factors: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Of x, y (up) and z, each > 0."""
    lean: tuple[float, float] = (0.0, 0.0)
    """How far x and z move for each unit of height."""
    taper: float = 0.0
    """Width at the top over width in the middle, less one, in (-1, 1)."""
    twist: float = 0.0
    """Radians about the vertical for each unit of height."""

    def __call__(self, points: NDArray) -> NDArray[np.float64]:
        """Points [...,3] of the unit sphere, moved."""
        x, y, z = np.moveaxis(points * np.asarray(self.factors), -1, 0)
        width = 1 + self.taper * np.clip(points[..., 1], -1, 1)
        cos, sin = np.cos(self.twist * points[..., 1]), np.sin(self.twist * points[..., 1])
        turned_x, turned_z = width * (cos * x + sin * z), width * (cos * z - sin * x)
        return np.stack([turned_x + self.lean[0] * y, y, turned_z + self.lean[1] * y], -1)

    @property
    def idle(self) -> bool:
        """Whether it changes nothing."""
        return self == Warp()


def warped(mesh: Mesh, warp: Callable[[NDArray], NDArray[np.float64]]) -> Mesh:
    """The mesh moved by a smooth map of points [...,3], its normals turned along, normalised again."""
    corners = mesh.corners.astype(np.float64)
    axes = np.eye(3) * _STEP
    along = [(warp(corners + axis) - warp(corners - axis)) / (2 * _STEP) for axis in axes]
    # A normal goes by the map's cofactors: the cross products of what becomes of the axes.
    cofactors = [np.cross(along[(k + 1) % 3], along[(k + 2) % 3]) for k in range(3)]
    normals = sum(mesh.normals[..., k, None] * cofactors[k] for k in range(3))
    lengths = np.linalg.norm(normals, axis=-1, keepdims=True)
    turned = (normals / np.maximum(lengths, 1e-12)).astype(np.float32)
    return replace(mesh, corners=normalised(warp(corners)), normals=turned)


def beside(mesh: Mesh, other: Mesh, scale: float, azimuth: float) -> Mesh:
    """Two meshes on one ground, their bounding cylinders a small gap apart, normalised again as one.

    Args:
        scale: size of the other against its own, > 0.
        azimuth: where it stands, in radians about the vertical.
    """
    second = other.corners * scale
    reach = sum(np.hypot(corners[..., 0], corners[..., 2]).max() for corners in (mesh.corners, second)) * (1 + _GAP)
    ground = mesh.corners[..., 1].min() - second[..., 1].min()
    second = second + np.array([reach * math.sin(azimuth), ground, reach * math.cos(azimuth)])
    return joined([mesh, replace(other, corners=second.astype(np.float32))])
