"""Project 3D Gaussians to 2D (EWA), eight at a time: `project_forward`.

Notation, for one Gaussian and one camera (Zwicker et al. 2001, Kerbl et al. 2023):
``M = R(q) diag(s)``, ``T = W M`` with the world-to-camera rotation W, ``U = J T`` with the 2x3 Jacobian
J of the pinhole, ``cov2d = U U^T + eps2d I``, ``conic = cov2d^-1``. The determinant is taken by
Cauchy-Binet, ``|u0 x u1|^2 + eps2d (|u0|^2 + |u1|^2) + eps2d^2``, which loses no digits on thin Gaussians.

A vector is a tuple of three `Lanes`, a matrix a tuple of three rows.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange

from recon.rasterize.simd import WIDTH, gather, lane_ceil, lane_sqrt, scatter, select

LOG2_ALPHA_MIN = np.float32(-math.log2(255.0))
"""Contributions below an alpha of 1/255 are dropped."""
MAX_EXTENT = np.float32(3.33)
"""Largest radius in standard deviations, gsplat's cap."""
TWO_LN2 = np.float32(2.0 * math.log(2.0))
FRUSTUM_MARGIN = np.float32(0.15)
"""The Jacobian is taken at most this share of the image's width outside the image."""


@njit(forceinline=True)
def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@njit(forceinline=True)
def _scale(a, factor):
    return a[0] * factor, a[1] * factor, a[2] * factor


@njit(forceinline=True)
def _add(a, b):
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


@njit(forceinline=True)
def _mix(p, a, q, b):
    """p a + q b."""
    return p * a[0] + q * b[0], p * a[1] + q * b[1], p * a[2] + q * b[2]


@njit(forceinline=True)
def _row_times(row, matrix):
    """row^T matrix, a row vector."""
    return (
        row[0] * matrix[0][0] + row[1] * matrix[1][0] + row[2] * matrix[2][0],
        row[0] * matrix[0][1] + row[1] * matrix[1][1] + row[2] * matrix[2][1],
        row[0] * matrix[0][2] + row[1] * matrix[1][2] + row[2] * matrix[2][2],
    )


@njit(forceinline=True)
def _gather3(array, first, last):
    return gather(array, first, last, 3, 0), gather(array, first, last, 3, 1), gather(array, first, last, 3, 2)


@njit(forceinline=True)
def _unit_quaternion(quats, first, last):
    """The normalised quaternion (w, x, y, z) and the inverse of its former length."""
    w, x = gather(quats, first, last, 4, 0), gather(quats, first, last, 4, 1)
    y, z = gather(quats, first, last, 4, 2), gather(quats, first, last, 4, 3)
    inverse_norm = 1.0 / lane_sqrt(w * w + x * x + y * y + z * z)
    return w * inverse_norm, x * inverse_norm, y * inverse_norm, z * inverse_norm, inverse_norm


@njit(forceinline=True)
def _rotation(w, x, y, z):
    """The rotation matrix of a unit quaternion."""
    return (
        (1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - w * z), 2.0 * (x * z + w * y)),
        (2.0 * (x * y + w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - w * x)),
        (2.0 * (x * z - w * y), 2.0 * (y * z + w * x), 1.0 - 2.0 * (x * x + y * y)),
    )


@njit(forceinline=True)
def _scale_columns(matrix, s):
    return (
        (matrix[0][0] * s[0], matrix[0][1] * s[1], matrix[0][2] * s[2]),
        (matrix[1][0] * s[0], matrix[1][1] * s[1], matrix[1][2] * s[2]),
        (matrix[2][0] * s[0], matrix[2][1] * s[1], matrix[2][2] * s[2]),
    )


@njit(forceinline=True)
def _camera(viewmats, Ks, view):
    """W's rows, the translation and (fx, fy, cx, cy) of one view."""
    m, k = viewmats[view], Ks[view]
    return (
        ((m[0, 0], m[0, 1], m[0, 2]), (m[1, 0], m[1, 1], m[1, 2]), (m[2, 0], m[2, 1], m[2, 2])),
        (m[0, 3], m[1, 3], m[2, 3]),
        (k[0, 0], k[1, 1], k[0, 2], k[1, 2]),
    )


@njit(forceinline=True)
def _clamped_slope(value, focal, centre, size):
    """value = x/z kept within the widened frustum, and where it was inside."""
    margin = FRUSTUM_MARGIN * size / focal
    low, high = -centre / focal - margin, (size - centre) / focal + margin
    return select(value < low, low, select(value > high, high, value)), (value >= low) & (value <= high)


@njit(forceinline=True)
def _project(mean, axes, camera, width, height):
    """Camera point, 1/z, J, slopes, T and U of eight Gaussians in one view.

    J = [[j00, 0, j02], [0, j11, j12]] is returned as (j00, j02, j11, j12).
    """
    rows, translation, (fx, fy, cx, cy) = camera
    x = _dot(rows[0], mean) + translation[0]
    y = _dot(rows[1], mean) + translation[1]
    z = _dot(rows[2], mean) + translation[2]
    inverse_z = 1.0 / z
    slope_x, inside_x = _clamped_slope(x * inverse_z, fx, cx, width)
    slope_y, inside_y = _clamped_slope(y * inverse_z, fy, cy, height)
    j00, j11 = fx * inverse_z, fy * inverse_z
    j02, j12 = -1.0 * j00 * slope_x, -1.0 * j11 * slope_y
    t = (_row_times(rows[0], axes), _row_times(rows[1], axes), _row_times(rows[2], axes))
    u = (_mix(j00, t[0], j02, t[2]), _mix(j11, t[1], j12, t[2]))
    return (x, y, z), inverse_z, (j00, j02, j11, j12), (slope_x, inside_x, slope_y, inside_y), t, u


@njit(forceinline=True)
def _covariance(u, eps2d):
    """cov2d's entries a, b, c and its determinant."""
    u0, u1 = u
    a, b, c = _dot(u0, u0), _dot(u0, u1), _dot(u1, u1)
    cross = (u0[1] * u1[2] - u0[2] * u1[1], u0[2] * u1[0] - u0[0] * u1[2], u0[0] * u1[1] - u0[1] * u1[0])
    return a + eps2d, b, c + eps2d, _dot(cross, cross) + eps2d * (a + c) + eps2d * eps2d


@njit(forceinline=True)
def _extent(log2_opacity):
    """Radius of the 1/255 contour in standard deviations, and where there is one."""
    above = log2_opacity - LOG2_ALPHA_MIN
    extent = lane_sqrt(TWO_LN2 * select(above > 0.0, above, 0.0))
    return select(extent > MAX_EXTENT, MAX_EXTENT, extent), above >= 0.0


@njit(forceinline=True)
def _write2(array, first, last, offset, values, visible):
    scatter(array, first, last, 2, offset * 2, select(visible, values[0], 0.0))
    scatter(array, first, last, 2, offset * 2 + 1, select(visible, values[1], 0.0))


@njit(forceinline=True)
def _write3(array, first, last, offset, values, visible):
    scatter(array, first, last, 3, offset * 3, select(visible, values[0], 0.0))
    scatter(array, first, last, 3, offset * 3 + 1, select(visible, values[1], 0.0))
    scatter(array, first, last, 3, offset * 3 + 2, select(visible, values[2], 0.0))


@njit(forceinline=True)
def _project_and_write(first, last, offset, mean, axes, extent, opaque, camera, settings, outputs):
    width, height, eps2d, near, far, radius_clip = settings
    means2d, conics, depths, radii, reaches = outputs
    point, inverse_z, _, _, _, u = _project(mean, axes, camera, width, height)
    a, b, c, determinant = _covariance(u, eps2d)
    reach_x, reach_y = extent * lane_sqrt(a), extent * lane_sqrt(c)
    radius_x, radius_y = lane_ceil(reach_x), lane_ceil(reach_y)
    fx, fy, cx, cy = camera[2]
    px, py = fx * point[0] * inverse_z + cx, fy * point[1] * inverse_z + cy
    visible = opaque & (point[2] >= near) & (point[2] <= far) & (determinant > 0.0)
    visible = visible & ((radius_x > radius_clip) | (radius_y > radius_clip))
    visible = visible & (px + radius_x > 0.0) & (px - radius_x < width)
    visible = visible & (py + radius_y > 0.0) & (py - radius_y < height)
    inverse = 1.0 / determinant
    _write2(means2d, first, last, offset, (px, py), visible)
    _write3(conics, first, last, offset, (c * inverse, -1.0 * b * inverse, a * inverse), visible)
    scatter(depths, first, last, 1, offset, select(visible, point[2], 0.0))
    _write2(reaches, first, last, offset, (reach_x, reach_y), visible)
    limit = 1.0e9
    radius_x, radius_y = select(radius_x > limit, limit, radius_x), select(radius_y > limit, limit, radius_y)
    _write2(radii, first, last, offset, (radius_x, radius_y), visible)


@njit(parallel=True, cache=True)
def project_forward(means, quats, scales, log2_opacities, viewmats, Ks, settings, outputs):
    """Fills `outputs` for all views; rows of Gaussians that a view does not see are zero.

    Args (flat float32 unless noted):
        means [3N], quats [4N] wxyz of any length > 0, scales [3N], log2_opacities [N],
        viewmats [C,4,4], Ks [C,3,3],
        settings: (width, height, eps2d, near, far, radius_clip) as float32,
        outputs: (means2d [2CN] pixels, conics [3CN], depths [CN], radii [2CN] int32, reaches [2CN] pixels).
    """
    count, last = log2_opacities.shape[0], log2_opacities.shape[0] - 1
    for block in prange((count + WIDTH - 1) // WIDTH):
        first = np.int64(block) * WIDTH
        mean = _gather3(means, first, last)
        w, x, y, z, _ = _unit_quaternion(quats, first, last)
        axes = _scale_columns(_rotation(w, x, y, z), _gather3(scales, first, last))
        extent, opaque = _extent(gather(log2_opacities, first, last, 1, 0))
        for view in range(viewmats.shape[0]):
            camera = _camera(viewmats, Ks, view)
            _project_and_write(first, last, view * count, mean, axes, extent, opaque, camera, settings, outputs)
