"""Write views as a COLMAP folder, `images/` beside `sparse/0/*.txt`: `colmap_files`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from factory.outputs.training_formats import Pictures
    from recon.gaussians import Gaussians


def colmap_files(pictures: Pictures, gaussians: Gaussians) -> dict[str, bytes]:
    """The files of a COLMAP folder by name: images with straight alpha, one PINHOLE camera, world-to-camera poses
    (x right, y down, z forward, quaternion wxyz) and the centres of the Gaussians as points without tracks."""
    names = [f"{k:03d}.png" for k in range(len(pictures.images))]
    files = {f"images/{name}": data for name, data in zip(names, pictures.images)}
    size, focal = pictures.size, pictures.focal
    camera = f"1 PINHOLE {size} {size} {focal!r} {focal!r} {size / 2!r} {size / 2!r}\n"
    return files | {
        "sparse/0/cameras.txt": camera.encode(),
        "sparse/0/images.txt": _poses(pictures.transforms, names).encode(),
        "sparse/0/points3D.txt": _points(gaussians).encode(),
    }


def _poses(transforms: Sequence[Sequence[Sequence[float]]], names: Sequence[str]) -> str:
    """Two lines an image: its pose, and its points, of which there are none."""
    from scipy.spatial.transform import Rotation

    lines = []
    for number, (matrix, name) in enumerate(zip(transforms, names), 1):
        to_camera = np.linalg.inv(np.array(matrix) @ np.diag([1.0, -1.0, -1.0, 1.0]))
        x, y, z, w = Rotation.from_matrix(to_camera[:3, :3]).as_quat(canonical=True).tolist()
        words = [w, x, y, z, *to_camera[:3, 3].tolist()]
        lines.append(f"{number} {' '.join(map(repr, words))} 1 {name}\n\n")
    return "".join(lines)


def _points(gaussians: Gaussians) -> str:
    colours = gaussians.base_colours.mul(255).round().int().tolist()
    rows = zip(gaussians.means.tolist(), colours)
    return "".join(
        f"{number} {x!r} {y!r} {z!r} {r} {g} {b} 0\n" for number, ((x, y, z), (r, g, b)) in enumerate(rows, 1)
    )
