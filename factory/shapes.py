"""An asset's 3D file as a shape that can be looked at: Gaussians or a mesh behind the same three calls."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from recon.config import OrbitConfig

if TYPE_CHECKING:
    from factory.meshes import Mesh
    from recon.cameras import Cameras
    from recon.gaussians import Gaussians


@dataclass(kw_only=True, slots=True)
class Turn:
    """Cameras of one turn about the object."""

    elevation: float
    """Radians."""
    size: int
    """Pixels a side."""
    orbit: OrbitConfig = field(default_factory=OrbitConfig)
    """Number of views, field of view, distance."""
    start: float = 0.0
    """Azimuth of the first view in radians."""

    @property
    def cameras(self) -> Cameras:
        """As the renderer wants them."""
        from recon.cameras import turntable

        return turntable(self.elevation, self.size, self.orbit, self.start)


class Shape(Protocol):
    """Something that can be rendered and measured."""

    def pictures(self, turn: Turn) -> NDArray[np.uint8]:
        """[V,S,S,4]: colour over white, and coverage."""
        ...

    def depths(self, turn: Turn) -> NDArray[np.float32]:
        """[V,S,S] along the camera's axis in world units, 0 where there is nothing."""
        ...

    def points(self, count: int) -> NDArray[np.float64]:
        """At most `count` points [N,3] on the surface that can be seen from outside."""
        ...


@dataclass(slots=True)
class Splats:
    """3D Gaussians."""

    gaussians: Gaussians

    def pictures(self, turn: Turn) -> NDArray[np.uint8]:
        """[V,S,S,4]: colour over white, and coverage."""
        import torch

        from recon.gaussians import render

        with torch.inference_mode():
            rgba = torch.cat(render(self.gaussians, turn.cameras), -1)
        return (rgba.clamp(0, 1) * 255).round().byte().cpu().numpy()

    def depths(self, turn: Turn) -> NDArray[np.float32]:
        """[V,S,S], expected along the camera's axis, 0 where less than half a pixel is covered."""
        from recon.views import render_views

        return render_views(self.gaussians, turn.cameras).depth

    def points(self, count: int) -> NDArray[np.float64]:
        """On the mesh that `mesh.enabled` makes of them."""
        from factory.surfaces import outer_points
        from recon.config import MeshConfig
        from recon.mesh import mesh_of

        return outer_points(np.asarray(mesh_of(self.gaussians, MeshConfig(texture=0)).triangles, np.float32), count)


@dataclass(slots=True)
class Solid:
    """A textured mesh in its unit sphere. `fine`: 64 samples a pixel instead of 4, for a truth."""

    mesh: Mesh
    fine: bool = False

    def pictures(self, turn: Turn) -> NDArray[np.uint8]:
        """[V,S,S,4]: colour over white, and coverage; ValueError for cameras that meshes are not rendered by."""
        from factory.meshes import render_turntable
        from factory.truth import true_turntable

        own, orbit = OrbitConfig(), turn.orbit
        if (orbit.fov_degrees, orbit.distance) != (own.fov_degrees, own.distance):
            raise ValueError(
                f"meshes are rendered at {own.fov_degrees} degrees from {own.distance}; leave these as they are"
            )
        make = true_turntable if self.fine else render_turntable
        return make(self.mesh, turn.elevation, turn.size, orbit.num_views, turn.start)

    def depths(self, turn: Turn) -> NDArray[np.float32]:
        """[V,S,S] of the nearest surface at pixel centres, 0 where there is none."""
        from factory.surfaces import mesh_depth

        return mesh_depth(self.mesh.corners, turn.cameras)

    def points(self, count: int) -> NDArray[np.float64]:
        """On its outer surface."""
        from factory.surfaces import outer_points

        return outer_points(self.mesh.corners, count)


def read_shape(data: bytes, path: str, fine: bool = False) -> Shape:
    """The shape in the bytes of a .ply of Gaussians, or of a .glb, .gltf or .obj.

    Raises:
        ValueError: when it is none, or is broken.
    """
    suffix = PurePosixPath(path).suffix.lower()
    if suffix != ".ply":
        from factory.meshes import load_mesh

        return Solid(load_mesh(data, suffix.lstrip(".")), fine)
    from recon.ply import read_ply

    with tempfile.NamedTemporaryFile(suffix=suffix) as file:
        file.write(data)
        file.flush()
        return Splats(read_ply(file.name))


def over_grey(pictures: NDArray[np.uint8], background: float) -> NDArray[np.uint8]:
    """Pictures over white [...,4] as [...,3] over a grey in [0, 1]."""
    bare = 1 - pictures[..., 3:].astype(np.float32) / 255
    return (pictures[..., :3] - 255 * (1 - background) * bare).clip(0, 255).round().astype(np.uint8)
