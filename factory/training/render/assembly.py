"""Assemble objects of meshes and simple solids at random, mirrored or in a circle: `assembled`.

After LRM-Zero (Xie et al. 2024), which trains on random compositions of simple solids alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from recon.meshes.mesh import Mesh, joined, normalised, plain

MOST_PARTS = 5
_SLICES = 16


def assembled(meshes: Sequence[Mesh], random: np.random.Generator) -> Mesh:
    """An object of two to five parts, each one of `meshes` or a solid, stretched, turned and set against the others.

    Some parts come in pairs, mirrored at the middle, and some as three to six copies around the vertical axis.

    Args:
        meshes: at least one; each is taken as often as chance has it.
    """
    whole: list[Mesh] = []
    for _ in range(int(random.integers(2, MOST_PARTS + 1))):
        part = meshes[int(random.integers(len(meshes)))] if random.uniform() < 0.4 else solid(random)
        whole += _repeated(_placed(part, whole, random), random)
    return joined(whole)


def solid(random: np.random.Generator) -> Mesh:
    """A box, prism, cone, ball or turned shape of two colours, in the unit sphere."""
    kind = random.choice(["box", "prism", "cone", "ball", "turned"])
    sides = int(random.integers(3, 9)) if kind in ("prism", "cone") and random.uniform() < 0.5 else _SLICES
    if kind == "box":
        radii, heights, sides = np.array([0.0, 1, 1, 0]), np.array([-1.0, -1, 1, 1]), 4
    elif kind == "prism":
        radii, heights = np.array([0.0, 1, 1, 0]), np.array([-1.0, -1, 1, 1])
    elif kind == "cone":
        radii, heights = np.array([0.0, 1, random.uniform(0, 0.7), 0]), np.array([-1.0, -1, 1, 1])
    elif kind == "ball":
        angles = np.linspace(-math.pi / 2, math.pi / 2, 9)
        radii, heights = np.cos(angles), np.sin(angles)
    else:
        count = int(random.integers(3, 7))
        radii = np.concatenate([[0], random.uniform(0.2, 1, count), [0]])
        heights = np.sort(random.uniform(-1, 1, count))
        heights = np.concatenate([heights[:1], heights, heights[-1:]])
    return _turned(radii, heights, sides, random.uniform(0, 1, (2, 3)), smooth=kind in ("ball", "turned"))


def _turned(radii: NDArray, heights: NDArray, sides: int, colors: NDArray, smooth: bool) -> Mesh:
    """The surface that a profile sweeps about the vertical; its rings take the two colours in turn by their height."""
    angles = (np.arange(sides + 1) + 0.5) * math.tau / sides
    rings = np.stack([
        np.outer(radii, np.sin(angles)), np.repeat(heights[:, None], sides + 1, 1), np.outer(radii, np.cos(angles))
    ], -1)  # fmt: skip
    low, high = rings[:-1], rings[1:]
    a, b, c, d = low[:, :-1], low[:, 1:], high[:, 1:], high[:, :-1]
    corners = np.concatenate([np.stack([a, b, c], -2), np.stack([a, c, d], -2)]).reshape(-1, 3, 3)
    upper = np.repeat(np.arange(len(radii) - 1) >= len(radii) // 2, sides)
    shades = colors[np.tile(upper, 2).astype(int)]
    edges = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(edges, axis=-1)
    kept = area > 1e-9
    normals = np.repeat((edges / np.maximum(area, 1e-12)[:, None])[:, None], 3, 1)
    if smooth:
        outward = corners * np.array([1, 0, 1])
        normals = normals + outward / np.maximum(np.linalg.norm(outward, axis=-1, keepdims=True), 1e-9) * 0.5
        normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
    return plain(normalised(corners[kept]), normals[kept], np.repeat(shades[kept][:, None], 3, 1))


def _placed(part: Mesh, whole: Sequence[Mesh], random: np.random.Generator) -> Mesh:
    """The part at another size and turn, its middle on the surface of the box around what is there already."""
    scales = random.uniform(0.3, 1) * random.uniform(0.25, 1, 3)
    rotation = _rotation(random)
    corners = (part.corners * scales) @ rotation.T
    normals = (part.normals / scales) @ rotation.T
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12)
    if whole:
        points = np.concatenate([mesh.corners.reshape(-1, 3) for mesh in whole])
        low, high = points.min(0), points.max(0)
        place = random.uniform(low, high)
        axis = int(random.integers(3))
        place[axis] = high[axis] if random.uniform() < 0.7 else low[axis]
        corners = corners + place
    return replace(part, corners=corners.astype(np.float32), normals=normals.astype(np.float32))


def _rotation(random: np.random.Generator) -> NDArray[np.float64]:
    """Upright by a quarter turn or any angle, or, in a quarter of the cases, any rotation."""
    from scipy.spatial.transform import Rotation

    if random.uniform() < 0.25:
        return Rotation.random(rng=random).as_matrix()
    angle = random.integers(4) * math.pi / 2 if random.uniform() < 0.5 else random.uniform(0, math.tau)
    return Rotation.from_euler("y", angle).as_matrix()


def _repeated(part: Mesh, random: np.random.Generator) -> list[Mesh]:
    chance = random.uniform()
    if chance < 0.3:
        mirror = np.array([-1, 1, 1], np.float32)
        return [part, replace(part, corners=part.corners * mirror, normals=part.normals * mirror)]
    if chance < 0.45:
        from scipy.spatial.transform import Rotation

        count = int(random.integers(3, 7))
        turns = [Rotation.from_euler("y", k * math.tau / count).as_matrix().astype(np.float32) for k in range(count)]
        return [replace(part, corners=part.corners @ t.T, normals=part.normals @ t.T) for t in turns]
    return [part]
