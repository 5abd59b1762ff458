"""Show an asset's 3D file, Gaussians or a mesh, behind the same three calls: `read_shape` makes a `Shape`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from eval.config import Up
from factory.evaluation.extent import gaussians_in, mesh_in
from recon.config import OrbitConfig

if TYPE_CHECKING:
    from eval.protocols import Extent
    from recon.cameras import Cameras
    from recon.gaussians import Gaussians
    from recon.meshes.mesh import Mesh


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
    azimuths: tuple[float, ...] | None = None
    """Of a turn that is not even, radians, in place of `start` and the number of views."""

    @property
    def cameras(self) -> Cameras:
        """As the renderer wants them."""
        from recon.cameras import around, turntable

        if self.azimuths is not None:
            return around(self.azimuths, self.elevation, self.size, self.orbit)
        return turntable(self.elevation, self.size, self.orbit, self.start)


class HasCameras(Protocol):
    """What has cameras: a `Turn`, or `Placed` ones."""

    @property
    def cameras(self) -> Cameras:
        """As the renderer wants them."""
        ...


@dataclass(kw_only=True, slots=True)
class Placed:
    """Cameras that stand anywhere."""

    cameras: Cameras


class Shape(Protocol):
    """Something that can be rendered and measured."""

    def pictures(self, turn: HasCameras) -> NDArray[np.uint8]:
        """[V,S,S,4]: colour over white, and coverage."""
        ...

    def depths(self, turn: HasCameras) -> NDArray[np.float32]:
        """[V,S,S] along the camera's axis in world units, 0 where there is nothing."""
        ...

    def normals(self, turn: HasCameras) -> NDArray[np.float32]:
        """[V,S,S,3]: unit vectors in the world towards the camera, 0 where there is nothing."""
        ...

    def points(self, count: int) -> NDArray[np.float64]:
        """At most `count` points [N,3] on the surface that can be seen from outside."""
        ...


_TO_Y_UP: dict[Up, NDArray[np.float32]] = {
    "y": np.eye(3, dtype=np.float32),
    "z": np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], np.float32),
    "y-down": np.array([[1, 0, 0], [0, -1, 0], [0, 0, -1]], np.float32),
    "z-down": np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]], np.float32),
}
"""Rotations of such a file's world to ours."""


@dataclass(slots=True)
class Splats:
    """3D Gaussians. `up`: in their own world; the cameras turn with it, so that no spherical harmonics need to."""

    gaussians: Gaussians
    up: Up = "y"

    def pictures(self, turn: HasCameras) -> NDArray[np.uint8]:
        """[V,S,S,4]: colour over white, and coverage; ValueError where no view shows anything."""
        import torch

        from recon.gaussians import render
        from recon.meshes.load import check_drawn

        with torch.inference_mode():
            rgba = torch.cat(render(self.gaussians, self._cameras(turn)), -1)
        views = (rgba.clamp(0, 1) * 255).round().byte().cpu().numpy()
        check_drawn(views)
        return views

    def depths(self, turn: HasCameras) -> NDArray[np.float32]:
        """[V,S,S], expected along the camera's axis, 0 where less than half a pixel is covered."""
        from recon.views import render_views

        return render_views(self.gaussians, self._cameras(turn)).depth

    def normals(self, turn: HasCameras) -> NDArray[np.float32]:
        """[V,S,S,3]: unit vectors in the y-up world towards the camera, 0 where there is nothing."""
        from recon.views import render_views

        return render_views(self.gaussians, self._cameras(turn)).normals @ _TO_Y_UP[self.up].T

    def _cameras(self, turn: HasCameras) -> Cameras:
        """Those of the turn, in the Gaussians' world."""
        import torch

        cameras, pose = turn.cameras, torch.eye(4)
        pose[:3, :3] = torch.from_numpy(_TO_Y_UP[self.up])
        return replace(cameras, viewmats=cameras.viewmats @ pose)

    def points(self, count: int) -> NDArray[np.float64]:
        """On the mesh that `mesh.enabled` makes of them."""
        from recon.config import MeshConfig
        from recon.mesh import mesh_of
        from recon.meshes.visible_surface import outer_points

        mesh = mesh_of(turned_gaussians(self.gaussians, _TO_Y_UP[self.up]), MeshConfig(texture=0))
        return outer_points(np.asarray(mesh.triangles, np.float32), count)


@dataclass(slots=True)
class Solid:
    """A textured mesh in its unit sphere. `fine`: 64 samples a pixel instead of 4, for a truth."""

    mesh: Mesh
    fine: bool = False

    def pictures(self, turn: HasCameras) -> NDArray[np.uint8]:
        """[V,S,S,4]: colour over white, and coverage; ValueError where no view shows anything."""
        from factory.evaluation.truth import true_views
        from recon.meshes.load import check_drawn, render_mesh

        views = (true_views if self.fine else render_mesh)(self.mesh, turn.cameras)
        check_drawn(views)
        return views

    def normals(self, turn: HasCameras) -> NDArray[np.float32]:
        """[V,S,S,3]: unit vectors in the world towards the camera, 0 where there is nothing."""
        import torch

        from recon.views import normals_of

        depth, cameras = torch.from_numpy(self.depths(turn)), turn.cameras
        return normals_of(depth, cameras.viewmats, cameras.Ks).numpy()

    def depths(self, turn: HasCameras) -> NDArray[np.float32]:
        """[V,S,S] of the nearest surface at pixel centres, 0 where there is none."""
        from recon.meshes.visible_surface import mesh_depth

        return mesh_depth(self.mesh.corners, turn.cameras)

    def points(self, count: int) -> NDArray[np.float64]:
        """On its outer surface."""
        from recon.meshes.visible_surface import outer_points

        return outer_points(self.mesh.corners, count)


def read_shape(
    data: bytes,
    path: str,
    fine: bool = False,
    up: Up = "y",
    normalise: bool = False,
    extent: Extent = "sphere",
    flat: bool = False,
    opener: Callable[[str], bytes] | None = None,
) -> Shape:
    """The shape in the bytes of a .ply of Gaussians or of a mesh, or of a .glb, .gltf or .obj.

    Args:
        path: names the file in errors, and its suffix the format. fine: sample meshes as a truth.
        up: of PLY and OBJ. normalise: move and scale Gaussians into `extent`, as meshes are in any case.
        flat: show meshes by their colours as they are, without light.
        opener: reads the files that a mesh names beside itself, see `load_mesh`.

    Raises:
        ValueError: when it is none, or is broken.
    """
    suffix = PurePosixPath(path).suffix.lower().lstrip(".")
    if suffix != "ply" or has_faces(data, path):
        from recon.meshes.load import load_mesh
        from recon.meshes.mesh import turned

        mesh = mesh_in(load_mesh(data, suffix, opener=opener), extent)
        mesh = replace(mesh, lit=np.zeros_like(mesh.lit)) if flat else mesh
        return Solid(turned(mesh, _TO_Y_UP[up]) if suffix in ("ply", "obj") else mesh, fine)
    from factory.stages.asset_ply import gaussians_of

    gaussians = gaussians_of(data, path)
    return Splats(gaussians_in(gaussians, extent) if normalise else gaussians, up)


def has_faces(data: bytes, path: str) -> bool:
    """Whether a PLY is a mesh and no Gaussians, by its header; ValueError where it has none."""
    from recon.ply import has_gaussians
    from recon.ply_header import read_header

    header = read_header(data, path)
    return header.count("face") + header.count("tristrips") > 0 and not has_gaussians(header)


def turned_gaussians(gaussians: Gaussians, rotation: NDArray[np.float32]) -> Gaussians:
    """Centres and axes turned by a rotation [3,3]; colours that depend on the view stay as they are."""
    import torch
    from scipy.spatial.transform import Rotation

    quats = gaussians.unit_quats.cpu().numpy()
    turned = (Rotation.from_matrix(rotation) * Rotation.from_quat(quats, scalar_first=True)).as_quat(scalar_first=True)
    return replace(
        gaussians, means=gaussians.means @ torch.from_numpy(rotation).T, quats=torch.from_numpy(turned).float()
    )


def over_grey(pictures: NDArray[np.uint8], background: float) -> NDArray[np.uint8]:
    """Pictures over white [...,4] as [...,3] over a grey in [0, 1]."""
    bare = 1 - pictures[..., 3:].astype(np.float32) / 255
    return (pictures[..., :3] - 255 * (1 - background) * bare).clip(0, 255).round().astype(np.uint8)
