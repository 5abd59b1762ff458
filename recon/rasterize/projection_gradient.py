"""Compute the analytic gradient of `recon.rasterize.projection`, eight Gaussians at a time: `project_backward`.

Each camera's contribution is summed in the order of the views, each Gaussian by one thread, camera
gradients in a fixed number of parts: the result does not depend on the number of threads.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from recon.rasterize.projection import (
    _add,
    _camera,
    _covariance,
    _dot,
    _gather3,
    _mix,
    _project,
    _rotation,
    _scale,
    _scale_columns,
    _unit_quaternion,
    _write3,
)
from recon.rasterize.simd import WIDTH, any_lane, gather, iota, lane_sum, scatter, select, splat

CHUNKS = 32
"""Camera gradients are summed in this many parts."""


@njit(forceinline=True)
def _conic_gradient(a, b, c, determinant, v):
    """dL/dcov2d = -K V K, as (g00, g01, g11), from v = dL/dconic; K is the conic, V symmetric."""
    inverse = 1.0 / determinant
    k00, k01, k11 = c * inverse, -1.0 * b * inverse, a * inverse
    half = 0.5 * v[1]
    p00, p01 = k00 * v[0] + k01 * half, k00 * half + k01 * v[2]
    p10, p11 = k01 * v[0] + k11 * half, k01 * half + k11 * v[2]
    return -1.0 * (p00 * k00 + p01 * k01), -1.0 * (p00 * k01 + p01 * k11), -1.0 * (p10 * k01 + p11 * k11)


@njit(forceinline=True)
def _point_gradient(point, inverse_z, jacobian, slopes, v_mean2d, v_depth, v_jacobian):
    """dL/d(camera point), through the projected mean, the depth and the Jacobian."""
    j00, j02, j11, j12 = jacobian
    _, inside_x, _, inside_y = slopes
    v00, v02, v11, v12 = v_jacobian
    vx = j00 * v_mean2d[0] - select(inside_x, j00 * inverse_z * v02, 0.0)
    vy = j11 * v_mean2d[1] - select(inside_y, j11 * inverse_z * v12, 0.0)
    tangent_x, tangent_y = point[0] * inverse_z, point[1] * inverse_z
    vz = v_depth - tangent_x * vx - tangent_y * vy
    vz = vz - inverse_z * (j00 * v00 + j02 * v02 + j11 * v11 + j12 * v12)
    return vx, vy, vz


@njit(forceinline=True)
def _outer(v, a):
    return _scale(a, v[0]), _scale(a, v[1]), _scale(a, v[2])


@njit(forceinline=True)
def _add_matrix(a, b):
    return _add(a[0], b[0]), _add(a[1], b[1]), _add(a[2], b[2])


@njit(forceinline=True)
def _transposed_times(a, b):
    """a^T b."""
    return _add_matrix(_add_matrix(_outer(a[0], b[0]), _outer(a[1], b[1])), _outer(a[2], b[2]))


@njit(forceinline=True)
def _view_gradient(mean, axes, camera, settings, v_mean2d, v_conic, v_depth):
    """dL/d(camera point) and dL/dT of one view."""
    width, height, eps2d = settings[0], settings[1], settings[2]
    point, inverse_z, jacobian, slopes, t, u = _project(mean, axes, camera, width, height)
    a, b, c, determinant = _covariance(u, eps2d)
    g00, g01, g11 = _conic_gradient(a, b, c, determinant, v_conic)
    vu0, vu1 = _mix(2.0 * g00, u[0], 2.0 * g01, u[1]), _mix(2.0 * g01, u[0], 2.0 * g11, u[1])
    j00, j02, j11, j12 = jacobian
    v_jacobian = (_dot(vu0, t[0]), _dot(vu0, t[2]), _dot(vu1, t[1]), _dot(vu1, t[2]))
    v_point = _point_gradient(point, inverse_z, jacobian, slopes, v_mean2d, v_depth, v_jacobian)
    return v_point, (_scale(vu0, j00), _scale(vu1, j11), _mix(j02, vu0, j12, vu1))


@njit(forceinline=True)
def _masked(vector, visible):
    return select(visible, vector[0], 0.0), select(visible, vector[1], 0.0), select(visible, vector[2], 0.0)


@njit(forceinline=True)
def _zero_vector():
    zero = splat(np.float32(0.0))
    return zero, zero, zero


@njit(forceinline=True)
def _quaternion_gradient(w, x, y, z, inverse_norm, g):
    """dL/dq of the unnormalised quaternion from g = dL/dR."""
    vw = 2.0 * (x * (g[2][1] - g[1][2]) + y * (g[0][2] - g[2][0]) + z * (g[1][0] - g[0][1]))
    vx = 2.0 * (y * (g[1][0] + g[0][1]) + z * (g[2][0] + g[0][2]) + w * (g[2][1] - g[1][2]))
    vy = 2.0 * (x * (g[1][0] + g[0][1]) + z * (g[2][1] + g[1][2]) + w * (g[0][2] - g[2][0]))
    vz = 2.0 * (x * (g[2][0] + g[0][2]) + y * (g[2][1] + g[1][2]) + w * (g[1][0] - g[0][1]))
    vx = vx - 4.0 * x * (g[1][1] + g[2][2])
    vy = vy - 4.0 * y * (g[0][0] + g[2][2])
    vz = vz - 4.0 * z * (g[0][0] + g[1][1])
    along = vw * w + vx * x + vy * y + vz * z
    return (
        (vw - along * w) * inverse_norm,
        (vx - along * x) * inverse_norm,
        (vy - along * y) * inverse_norm,
        (vz - along * z) * inverse_norm,
    )


@njit(forceinline=True)
def _add_camera_gradient(total, v_point, v_t, mean, axes, inside):
    """Adds dL/d[W | t] of the lanes inside the table to total [3,4]: v_p m^T + v_T M^T, and v_p."""
    for i in range(3):
        v_row = v_t[i]
        for j in range(3):
            entry = v_point[i] * mean[j] + _dot(v_row, axes[j])
            total[i, j] += lane_sum(select(inside, entry, 0.0))
        total[i, 3] += lane_sum(select(inside, v_point[i], 0.0))


@njit(forceinline=True)
def _write_gradient(first, last, quaternion, s, v_mean, v_axes, visible_anywhere, gradients):
    """Turns dL/dM into quaternion and scale gradients and writes the block's rows."""
    v_means, v_quats, v_scales = gradients
    w, x, y, z, inverse_norm = quaternion
    rotation = _rotation(w, x, y, z)
    v_scale = (
        rotation[0][0] * v_axes[0][0] + rotation[1][0] * v_axes[1][0] + rotation[2][0] * v_axes[2][0],
        rotation[0][1] * v_axes[0][1] + rotation[1][1] * v_axes[1][1] + rotation[2][1] * v_axes[2][1],
        rotation[0][2] * v_axes[0][2] + rotation[1][2] * v_axes[1][2] + rotation[2][2] * v_axes[2][2],
    )
    v_quat = _quaternion_gradient(w, x, y, z, inverse_norm, _scale_columns(v_axes, s))
    _write3(v_means, first, last, 0, v_mean, visible_anywhere)
    _write3(v_scales, first, last, 0, v_scale, visible_anywhere)
    scatter(v_quats, first, last, 4, 0, select(visible_anywhere, v_quat[0], 0.0))
    scatter(v_quats, first, last, 4, 1, select(visible_anywhere, v_quat[1], 0.0))
    scatter(v_quats, first, last, 4, 2, select(visible_anywhere, v_quat[2], 0.0))
    scatter(v_quats, first, last, 4, 3, select(visible_anywhere, v_quat[3], 0.0))


@njit(forceinline=True)
def _block_gradient(first, last, inputs, viewmats, Ks, settings, incoming, gradients, v_viewmats):
    means, quats, scales = inputs
    v_means2d, v_conics, v_depths, depths = incoming
    count = last + 1
    mean, s, quaternion = (
        _gather3(means, first, last),
        _gather3(scales, first, last),
        _unit_quaternion(quats, first, last),
    )
    axes = _scale_columns(_rotation(quaternion[0], quaternion[1], quaternion[2], quaternion[3]), s)
    inside = iota() < np.float32(count - first)
    v_mean, v_axes = _zero_vector(), (_zero_vector(), _zero_vector(), _zero_vector())
    anywhere = iota() < np.float32(0.0)
    for view in range(viewmats.shape[0]):
        offset = view * count
        visible = gather(depths, first, last, 1, offset) > 0.0
        if not any_lane(visible):
            continue
        anywhere = anywhere | visible
        camera = _camera(viewmats, Ks, view)
        v_mean2d = gather(v_means2d, first, last, 2, 2 * offset), gather(v_means2d, first, last, 2, 2 * offset + 1)
        v_conic = (
            gather(v_conics, first, last, 3, 3 * offset),
            gather(v_conics, first, last, 3, 3 * offset + 1),
            gather(v_conics, first, last, 3, 3 * offset + 2),
        )
        v_depth = gather(v_depths, first, last, 1, offset)
        v_point, v_t = _view_gradient(mean, axes, camera, settings, v_mean2d, v_conic, v_depth)
        v_point = _masked(v_point, visible)
        v_t = _masked(v_t[0], visible), _masked(v_t[1], visible), _masked(v_t[2], visible)
        rows = camera[0]
        v_mean = _add(v_mean, _mix(v_point[0], rows[0], v_point[1], rows[1]))
        v_mean = _add(v_mean, _scale(rows[2], v_point[2]))
        v_axes = _add_matrix(v_axes, _transposed_times(rows, v_t))
        if v_viewmats.shape[0] > 0:
            _add_camera_gradient(v_viewmats[view], v_point, v_t, mean, axes, inside)
    _write_gradient(first, last, quaternion, s, v_mean, v_axes, anywhere, gradients)


@njit(parallel=True, cache=True)
def project_backward(inputs, viewmats, Ks, settings, incoming, gradients, v_viewmats):
    """Fills `gradients` from the gradients of the projected quantities, summed over the views.

    Args (flat float32):
        inputs: (means [3N], quats [4N], scales [3N]),
        viewmats [C,4,4], Ks [C,3,3], settings: as in `project_forward`,
        incoming: (v_means2d [2CN], v_conics [3CN], v_depths [CN], depths [CN], 0 where not visible),
        gradients: (v_means [3N], v_quats [4N], v_scales [3N]), written,
        v_viewmats: [CHUNKS,C,3,4] zeros, added to; [CHUNKS,0,3,4] skips camera gradients.
    """
    count = inputs[0].shape[0] // 3
    blocks = (count + WIDTH - 1) // WIDTH
    for item in prange(CHUNKS):
        chunk = np.int64(item)
        for block in range(chunk * blocks // CHUNKS, (chunk + 1) * blocks // CHUNKS):
            _block_gradient(
                block * WIDTH, count - 1, inputs, viewmats, Ks, settings, incoming, gradients, v_viewmats[chunk]
            )
