"""Hold a textured triangle soup, and turn, join and normalise whole ones: `Mesh`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(kw_only=True, slots=True)
class Mesh:
    """A triangle soup normalised to the unit sphere about its bounding box's centre, +y up.

    `corners` [F,3,3], `normals` [F,3,3], `uvs` [F,3,2] (v up), `colors` [F,3,3] sRGB in [0,1] (vertex colour
    times the material's factor), `texture_ids` [F] (-1: none). `texels` is every image as one flat
    [T,4] uint8 array; `textures` [M,5] holds an image's offset, width and height, and how it goes on beyond its
    edges in u and v (`REPEAT`, `CLAMP`, `MIRROR` of `recon.meshes.textures`). `alphas` [F,3] times the texture's
    alpha is compared with `cutoffs` [F], below which a sample is left out (0: never). `lit` [F] is False where
    colours are final. `emissions` [F,3] is linear light that is added, times the texture `emission_ids` [F] at
    `emission_uvs` [F,3,2].
    """

    corners: NDArray[np.float32]
    normals: NDArray[np.float32]
    uvs: NDArray[np.float32]
    colors: NDArray[np.float32]
    alphas: NDArray[np.float32]
    texture_ids: NDArray[np.int32]
    texels: NDArray[np.uint8]
    textures: NDArray[np.int64]
    cutoffs: NDArray[np.float32]
    lit: NDArray[np.bool_]
    emissions: NDArray[np.float32]
    emission_ids: NDArray[np.int32]
    emission_uvs: NDArray[np.float32]


def turned(mesh: Mesh, rotation: NDArray[np.float32]) -> Mesh:
    """The mesh turned by a rotation [3,3]."""
    return replace(mesh, corners=mesh.corners @ rotation.T, normals=mesh.normals @ rotation.T)


def joined(meshes: Sequence[Mesh]) -> Mesh:
    """Several meshes, where they are, as one, normalised again."""
    texels = np.cumsum([0, *(len(mesh.texels) for mesh in meshes)])
    counts = np.cumsum([0, *(len(mesh.textures) for mesh in meshes)])
    textures = [mesh.textures + np.array([texels[k], 0, 0, 0, 0]) for k, mesh in enumerate(meshes)]

    def numbered(name: str) -> NDArray[np.int32]:
        ids = [getattr(mesh, name) for mesh in meshes]
        return np.concatenate([np.where(i < 0, -1, i + counts[k]) for k, i in enumerate(ids)]).astype(np.int32)

    together = {name: np.concatenate([getattr(mesh, name) for mesh in meshes])
                for name in ("normals", "uvs", "colors", "alphas", "texels", "cutoffs", "lit", "emissions",
                             "emission_uvs")}  # fmt: skip
    return Mesh(
        corners=normalised(np.concatenate([mesh.corners for mesh in meshes])),
        texture_ids=numbered("texture_ids"),
        emission_ids=numbered("emission_ids"),
        textures=np.concatenate(textures),
        **together,
    )


def plain(corners: NDArray, normals: NDArray, colors: NDArray) -> Mesh:
    """A mesh without textures from `corners`, `normals` and sRGB `colors`, each [F,3,3]; it is not normalised."""
    count = len(corners)
    return Mesh(
        corners=corners.astype(np.float32),
        normals=normals.astype(np.float32),
        uvs=np.zeros((count, 3, 2), np.float32),
        colors=colors.astype(np.float32),
        alphas=np.ones((count, 3), np.float32),
        texture_ids=np.full(count, -1, np.int32),
        texels=np.zeros((1, 4), np.uint8),
        textures=np.zeros((0, 5), np.int64),
        cutoffs=np.zeros(count, np.float32),
        lit=np.ones(count, bool),
        emissions=np.zeros((count, 3), np.float32),
        emission_ids=np.full(count, -1, np.int32),
        emission_uvs=np.zeros((count, 3, 2), np.float32),
    )


def normalised(corners: NDArray) -> NDArray[np.float32]:
    """Corners [F,3,3] moved and scaled into the unit sphere about their bounding box's centre.

    Raises:
        ValueError: when they all lie in one point.
    """
    points = corners.reshape(-1, 3)
    centred = corners - (points.min(0) + points.max(0)) / 2
    radius = float(np.linalg.norm(centred, axis=-1).max())
    if radius <= 0:
        raise ValueError("asset has no extent: every vertex lies in one point")
    return (centred / radius).astype(np.float32)
