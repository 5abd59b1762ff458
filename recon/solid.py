"""Turn Gaussians into the solid that they cover (paper A.7): density on a grid, cut to outlines, closed: `solid_of`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numba
import numpy as np
from numpy.typing import NDArray

from recon.cameras import Cameras
from recon.config import MeshConfig
from recon.gaussians import Gaussians
from recon.silhouettes import least_coverage
from recon.unseen import closed, seen_parts

REACH = 3.0
"""A Gaussian is evaluated up to this many standard deviations."""
LEAST_DEVIATION = 0.7
"""Thinner Gaussians are widened to this many grid steps, since the grid would miss them."""
LEAST_PART = 0.02
"""Separate parts with a smaller share of the largest part's volume are left out, unless a camera sees them."""
SMOOTHING = 0.004
"""Standard deviation of the blur over the density, of the longest side: single Gaussians would make a rough surface."""
EMPTY = 0.1
"""A place is empty where some view shows less coverage. The least of many uncertain views lies below the true coverage:
at one half, thin things would vanish."""
PINHOLE = 2
"""Openings of up to twice this many samples do not join a hollow to the outside."""


@dataclass(kw_only=True, slots=True)
class Solid:
    """Samples on a grid, empty at its border."""

    values: NDArray[np.float32]
    """[X,Y,Z], above 1 inside."""
    field: NDArray[np.float32]
    """[4,X,Y,Z]: the Gaussians' density, and the density times red, green and blue."""
    origin: NDArray[np.float64]
    """World position [3] of the first sample."""
    step: float
    """Between samples, world units."""

    def surface(self) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Marching cubes: vertices [V,3] in samples, and faces [F,3] counter-clockwise seen from outside."""
        from skimage.measure import marching_cubes

        vertices, faces, _, _ = marching_cubes(self.values, 1.0, gradient_direction="ascent", allow_degenerate=False)
        return vertices, faces

    def colours(self, vertices: NDArray) -> NDArray[np.float32]:
        """sRGB [V,3] in [0,1] of the Gaussians at places in samples."""
        from scipy.ndimage import map_coordinates

        density, *rest = (map_coordinates(channel, vertices.T, order=1) for channel in self.field)
        return (np.stack(rest, -1) / np.maximum(density, 1e-6)[:, None]).clip(0, 1)


def solid_of(gaussians: Gaussians, config: MeshConfig, cameras: Cameras | None = None) -> Solid:
    """What lies within the surface where the Gaussians' density reaches `config.density`, cut to their outlines.

    The density swells thin things, so what any view shows as empty is taken away (`least_coverage`). Hollows are
    filled, so that only the outer surface remains.

    Args:
        cameras: of the frames that the Gaussians were fitted to. Where none of them looks the surface is then closed
            smoothly (`recon.unseen`), and small parts that they see are kept.

    Raises:
        ValueError: if there are no Gaussians, a value is not finite, a quaternion has no length, the density is nowhere
            reached, or all that it makes lies outside of the outlines.
    """
    field, origin, step = density_field(gaussians, config.resolution)
    outlines = least_coverage(gaussians, origin, step, field.shape[1:])
    values = np.minimum(filled(field[0], config.density) / config.density, outlines / EMPTY)
    if values.max() <= 1:
        raise ValueError("the outlines of the Gaussians leave nothing of their density; fit the asset again")
    solid = without_small_parts(Solid(values=values, field=field, origin=origin, step=step), cameras)
    return solid if cameras is None else without_unseen(solid, cameras)


def density_field(gaussians: Gaussians, resolution: int) -> tuple[NDArray[np.float32], NDArray[np.float64], float]:
    """Density sum_i alpha_i exp(-d_i^2 / 2), d_i the Mahalanobis distance, and the density times each colour.

    Returns:
        The field [4,X,Y,Z] (density, red, green, blue), the world position [3] of its first sample, and the step
        between samples, chosen so that the longest side has `resolution` samples. The border is empty.
    """
    means, deviations, alphas, colours, rotations = _arrays(gaussians)
    reach = REACH * deviations.max(1, keepdims=True)
    low, high = np.quantile(means - reach, 0.001, 0), np.quantile(means + reach, 0.999, 0)
    step = float((high - low).max()) / (resolution - 1)
    shape = tuple(np.ceil((high - low) / step).astype(int) + 1)
    deviations = np.maximum(deviations / step, LEAST_DEVIATION)
    extents = REACH * np.sqrt((rotations**2 * deviations[:, None] ** 2).sum(2))
    whiten = rotations.transpose(0, 2, 1) / deviations[:, :, None]
    field = np.zeros((4, *shape), np.float32)
    _splat(field, (means - low) / step, extents, whiten, alphas, colours)
    for axis in range(1, 4):
        np.moveaxis(field, axis, 0)[[0, -1]] = 0
    return field, low, step


def _arrays(gaussians: Gaussians) -> tuple[NDArray, ...]:
    """Means [N,3], deviations [N,3], opacities [N], sRGB colours [N,3] and rotations [N,3,3] as float64."""
    from scipy.spatial.transform import Rotation

    if not len(gaussians):
        raise ValueError("there are 0 Gaussians; a mesh needs at least 1, so fit the asset again")
    quats = gaussians.unit_quats.cpu().double().numpy()
    parts = (gaussians.means, gaussians.standard_deviations, gaussians.alphas, gaussians.base_colours)
    arrays = [part.cpu().double().numpy() for part in parts]
    names = ("means", "scales", "opacities", "sh0", "quats")
    bad = [name for name, array in zip(names, [*arrays, quats], strict=True) if not np.isfinite(array).all()]
    if bad:
        raise ValueError(f"{', '.join(bad)} hold values that are not finite; remove those Gaussians before meshing")
    if not np.linalg.norm(quats, axis=1).all():
        raise ValueError("some quats have length 0; give them a direction, such as (1, 0, 0, 0), before meshing")
    return (*arrays, Rotation.from_quat(quats[:, [1, 2, 3, 0]]).as_matrix())


@numba.njit(cache=True)
def _splat(field, means, extents, whiten, alphas, colours):
    """Add Gaussians to a field [4,X,Y,Z]; means, half sides of their boxes and deviations in samples."""
    _, wide, high, deep = field.shape
    for n in range(len(means)):
        (x0, y0, z0), (rx, ry, rz), w = means[n], extents[n], whiten[n]
        for i in range(max(0, math.ceil(x0 - rx)), min(wide - 1, math.floor(x0 + rx)) + 1):
            for j in range(max(0, math.ceil(y0 - ry)), min(high - 1, math.floor(y0 + ry)) + 1):
                for k in range(max(0, math.ceil(z0 - rz)), min(deep - 1, math.floor(z0 + rz)) + 1):
                    x, y, z = i - x0, j - y0, k - z0
                    squared = 0.0
                    for axis in range(3):
                        squared += (w[axis, 0] * x + w[axis, 1] * y + w[axis, 2] * z) ** 2
                    if squared <= REACH**2:
                        density = alphas[n] * math.exp(-squared / 2)
                        field[0, i, j, k] += density
                        for channel in range(3):
                            field[channel + 1, i, j, k] += density * colours[n, channel]


def filled(density: NDArray[np.float32], level: float) -> NDArray[np.float32]:
    """The density, smoothed, with hollows filled.

    Gaussians cover a surface, often with pinholes: a hollow counts as closed when openings of up to `2 * PINHOLE`
    samples are stopped.

    Raises:
        ValueError: if the density is nowhere above `level`.
    """
    from scipy import ndimage

    smooth = np.pad(ndimage.gaussian_filter(density, SMOOTHING * max(density.shape))[1:-1, 1:-1, 1:-1], 1)
    full = smooth > level
    if not full.any():
        raise ValueError(f"the density reaches {smooth.max():.3g}, not mesh.density {level}; lower mesh.density")
    stopped = np.pad(full, PINHOLE)
    stopped = np.asarray(ndimage.binary_closing(stopped, iterations=PINHOLE))[(slice(PINHOLE, -PINHOLE),) * 3]
    stopped = stopped.astype(bool)
    hollow = np.asarray(ndimage.binary_fill_holes(stopped)) & ~stopped
    filled = np.asarray(ndimage.binary_fill_holes(full | hollow))
    return np.where(filled & ~full, 2 * level, smooth).astype(np.float32)


def without_small_parts(solid: Solid, cameras: Cameras | None) -> Solid:
    """The solid without separate parts of less than `LEAST_PART` of the largest one's volume that no camera sees."""
    labels, small = _parts(solid.values)
    if cameras is not None and small.any():
        small[seen_parts(labels, solid.surface(), solid.origin, solid.step, cameras)] = False
    return replace(solid, values=np.where(small[labels], 0, solid.values).astype(np.float32))


def without_unseen(solid: Solid, cameras: Cameras) -> Solid:
    """The solid closed where no camera sees it, in the parts that it had, and without hollows."""
    from scipy.ndimage import binary_fill_holes

    labels, small = _parts(solid.values)
    crumbs = small[labels]
    values = closed(solid.values, solid.surface(), solid.origin, solid.step, cameras)
    values = np.where(np.asarray(binary_fill_holes(values > 1)), np.where(values > 1, values, 2), values)
    labels, small = _parts(values)
    small[np.unique(labels[crumbs])] = False
    return replace(solid, values=np.where(small[labels], 0, values).astype(np.float32))


def _parts(values: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """The separate part [X,Y,Z] that every sample belongs to, 0 for the outside, and which parts are small."""
    from scipy import ndimage

    labels, count = ndimage.label(values > 1)  # pyright: ignore[reportGeneralTypeIssues]
    labels = np.asarray(labels, np.int32)
    volumes = np.bincount(labels.ravel(), minlength=count + 1)
    volumes[0] = volumes[1:].max()
    return labels, volumes < LEAST_PART * volumes.max()
