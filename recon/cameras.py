"""Place orbit cameras: `turntable`. This is the one place where the axis convention is stated.

World: right-handed, +y up (as glTF), the object at the origin inside a sphere of radius 1,
its front towards +z. Azimuth 0 looks at the front from +z; growing azimuth moves the camera
towards +x (counter-clockwise seen from above). Elevation is the camera's angle above the
horizon. Cameras follow OpenCV: x right, y down, z forward; ``viewmats`` map world to camera.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from recon.config import OrbitConfig

__all__ = ["Cameras", "OrbitConfig", "around", "azimuths", "intrinsics", "look_at_origin", "turntable"]


@dataclass(kw_only=True, slots=True)
class Cameras:
    """Pinhole cameras: ``viewmats`` [C,4,4] world to camera, ``Ks`` [C,3,3] in pixels, square images."""

    viewmats: Tensor
    Ks: Tensor
    size: int

    def __len__(self) -> int:
        return self.viewmats.shape[0]

    def __getitem__(self, views: Sequence[int]) -> Cameras:
        """Those of the `views`, by their numbers."""
        chosen = list(views)
        return Cameras(viewmats=self.viewmats[chosen], Ks=self.Ks[chosen], size=self.size)


def look_at_origin(azimuths: Tensor, elevations: Tensor, distance: float) -> Tensor:
    """World-to-camera matrices [C,4,4] for cameras on a sphere that look at the origin.

    Args:
        azimuths: [C] radians, any range.
        elevations: [C] radians in (-pi/2, pi/2).
        distance: camera to origin, > 0.

    Raises:
        ValueError: if an elevation is not finite or reaches a pole, where "up" is undefined.
    """
    if not bool(elevations.isfinite().all()):
        raise ValueError(f"elevation is {elevations.tolist()}; it must be a finite angle in radians")
    if bool((elevations.abs() >= math.pi / 2 - 1e-4).any()):
        raise ValueError(f"elevation {elevations.abs().max().item():.4f} rad reaches a pole; keep |elevation| < pi/2")
    sin_a, cos_a = azimuths.sin(), azimuths.cos()
    sin_e, cos_e = elevations.sin(), elevations.cos()
    zero = torch.zeros_like(sin_a)
    right = torch.stack([cos_a, zero, -sin_a], -1)
    down = torch.stack([sin_a * sin_e, -cos_e, cos_a * sin_e], -1)
    forward = torch.stack([-sin_a * cos_e, -sin_e, -cos_a * cos_e], -1)
    viewmats = torch.eye(4, dtype=azimuths.dtype, device=azimuths.device).repeat(azimuths.shape[0], 1, 1)
    viewmats[:, :3, :3] = torch.stack([right, down, forward], -2)
    viewmats[:, 2, 3] = distance
    return viewmats


def intrinsics(size: int, fov_degrees: float) -> Tensor:
    """The 3x3 pinhole matrix of a square image of `size` pixels; pixel centres lie at +0.5.

    Raises:
        ValueError: if `size` is not positive.
    """
    if size < 1:
        raise ValueError(f"image size is {size}; it must be at least 1 pixel")
    focal = 0.5 * size / math.tan(math.radians(fov_degrees) / 2)
    return torch.tensor([[focal, 0.0, size / 2], [0.0, focal, size / 2], [0.0, 0.0, 1.0]])


def azimuths(config: OrbitConfig, start: float = 0.0) -> Tensor:
    """The [num_views] azimuths of a turntable in radians, from `start`, at uniform steps."""
    return start + torch.arange(config.num_views) * (2 * math.pi / config.num_views)


def turntable(elevation: float, size: int, config: OrbitConfig | None = None, start: float = 0.0) -> Cameras:
    """The cameras of one turntable: `elevation` and `start` azimuth in radians, images of `size` pixels."""
    config = config or OrbitConfig()
    return around(azimuths(config, start), elevation, size, config)


def around(angles: Tensor | Sequence[float], elevation: float, size: int, config: OrbitConfig | None = None) -> Cameras:
    """The cameras of a turn at any azimuths `angles` [V], radians; `config` says field of view and distance only."""
    config, angles = config or OrbitConfig(), torch.as_tensor(angles, dtype=torch.float32)
    viewmats = look_at_origin(angles, torch.full_like(angles, elevation), config.distance)
    Ks = intrinsics(size, config.fov_degrees).expand(len(angles), 3, 3).clone()
    return Cameras(viewmats=viewmats, Ks=Ks, size=size)
