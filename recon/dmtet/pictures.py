"""Render a coloured triangle mesh so that gradients reach its vertices: `picture`.

The picture is the one that `recon.meshes.load.render_mesh` draws: a z-buffer with 2 x 2 samples a pixel. A rasteriser
has no derivative at an outline, so motion is followed by differences between neighbouring samples A and B (Pidhorskyi
et al. 2024, rasterised edge gradients): when what lies at their border moves from A towards B by a sample's width,

    dL = 1/2 (dL/dI_A + dL/dI_B) . (I_A - I_B),

and what moves is the nearer of two surfaces, or both by half where they are one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SUPERSAMPLING = 2
"""Samples along a pixel's side, as many as the renderer of meshes takes."""
STEEP = 4.0
"""Neighbouring samples belong to two surfaces where their depths differ by more sample widths than this."""
NEAR = 0.05
"""Triangles with a corner nearer to the camera than this are left out, world units."""


def picture(vertices: Tensor, faces: Tensor, colours: Tensor, viewmat: Tensor, K: Tensor, size: int):
    """One view of a closed mesh over white.

    Args:
        vertices: [V,3] world units, float32 on the CPU. faces: int32 [F,3].
        colours: [V,3] in [0,1], interpolated over the triangles.
        viewmat: [4,4] world to camera. K: [3,3], its axis through the middle of the picture.
        size: pixels a side.

    Returns:
        rgb [S,S,3] and coverage [S,S,1]; gradients reach `vertices` and `colours`.
    """
    return _Picture.apply(vertices, faces, colours, viewmat, float(K[0, 0]), size)


@dataclass(kw_only=True, slots=True)
class Look:
    """What a camera sees of a mesh, R = SUPERSAMPLING * size samples a side."""

    owners: NDArray[np.int32]
    """[R,R] the triangle in front, -1 for none."""
    depth: NDArray[np.float32]
    """[R,R] along the camera's axis; infinite where there is nothing."""
    slant: NDArray[np.float32]
    """[R,R] cosine between the triangle's normal and the way to the eye: 0 for nothing, below it for a back."""
    viewmat: NDArray[np.float32]
    focal: float
    """Samples."""

    def at(self, points: NDArray) -> tuple[NDArray, NDArray]:
        """How far world points [N,3] lie behind what is seen there, and its slant; outside the picture inf and 0."""
        side = len(self.depth)
        local = points @ self.viewmat[:3, :3].T + self.viewmat[:3, 3]
        ahead = np.where(local[:, 2] > NEAR, local[:, 2], np.inf)
        columns, rows = np.floor(side / 2 + self.focal * local[:, :2] / ahead[:, None]).astype(int).T
        looked = np.isfinite(ahead) & (columns >= 0) & (columns < side) & (rows >= 0) & (rows < side)
        rows, columns = rows.clip(0, side - 1), columns.clip(0, side - 1)
        behind = np.where(looked, local[:, 2] - self.depth[rows, columns], np.inf)
        return behind, np.where(looked, self.slant[rows, columns], 0)


def look(vertices: NDArray[np.float32], faces: NDArray[np.int32], viewmat: Tensor, K: Tensor, size: int) -> Look:
    """What a camera sees of a mesh [V,3], [F,3]; `viewmat` [4,4], `K` [3,3] and `size` as for `picture`."""
    turn, focal, side = viewmat.numpy(), float(K[0, 0]) * SUPERSAMPLING, SUPERSAMPLING * size
    _, owners, _, inverse = _draw(vertices, faces, np.zeros_like(vertices), turn, np.float32(focal), side)
    normals = np.cross(vertices[faces[:, 1]] - vertices[faces[:, 0]], vertices[faces[:, 2]] - vertices[faces[:, 0]])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    steps = (np.arange(side) + 0.5 - side / 2) / focal
    ways = np.stack([*np.meshgrid(steps, steps), np.ones((side, side))], -1) @ turn[:3, :3]
    slant = -(normals[owners] * ways).sum(-1) / np.linalg.norm(ways, axis=-1)
    with np.errstate(divide="ignore"):
        depth = np.float32(1) / inverse
    return Look(
        owners=owners, depth=depth, slant=np.where(owners < 0, 0, slant).astype(np.float32), viewmat=turn, focal=focal
    )


class _Picture(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vertices: Tensor, faces: Tensor, colours: Tensor, viewmat: Tensor, focal: float, size: int):
        side = size * SUPERSAMPLING
        given = (vertices.detach().numpy(), faces.numpy(), colours.detach().numpy(), viewmat.numpy())
        samples, owners, weights, inverse = _draw(*given, np.float32(focal * SUPERSAMPLING), side)
        ctx.known = given, (samples, owners, weights, inverse), focal * SUPERSAMPLING
        mean = samples.reshape(size, SUPERSAMPLING, size, SUPERSAMPLING, 4).mean((1, 3))
        whole = torch.from_numpy(mean)
        return whole[..., :3].contiguous(), whole[..., 3:].contiguous()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        rgb, alpha = gradients
        both = torch.cat([rgb, alpha], -1).repeat_interleave(SUPERSAMPLING, 0).repeat_interleave(SUPERSAMPLING, 1)
        of_samples = (both / SUPERSAMPLING**2).contiguous().numpy()
        (vertices, faces, colours, viewmat), (samples, owners, weights, inverse), focal = ctx.known
        of_vertices, of_colours = _follow(
            vertices, faces, colours, viewmat, samples, owners, weights, inverse, focal, of_samples
        )
        return torch.from_numpy(of_vertices), None, torch.from_numpy(of_colours), None, None, None


@numba.njit(cache=True, fastmath=True)
def _draw(vertices, faces, colours, viewmat, focal, side):
    """Samples [side,side,4] over white, the triangle at each (-1: none), its weights and inverse depth."""
    half = side / 2
    places = np.empty((len(vertices), 3), np.float32)
    for v in range(len(vertices)):
        x, y, z = vertices[v]
        depth = viewmat[2, 0] * x + viewmat[2, 1] * y + viewmat[2, 2] * z + viewmat[2, 3]
        scale = 1 / depth if depth >= NEAR else np.float32(0)
        for c in range(2):
            across = viewmat[c, 0] * x + viewmat[c, 1] * y + viewmat[c, 2] * z + viewmat[c, 3]
            places[v, c] = half + focal * across * scale
        places[v, 2] = scale
    owners = np.full((side, side), -1, np.int32)
    inverse = np.zeros((side, side), np.float32)
    weights = np.zeros((side, side, 3), np.float32)
    for f in range(len(faces)):
        _cover(f, places[faces[f, 0]], places[faces[f, 1]], places[faces[f, 2]], owners, inverse, weights)
    samples = np.ones((side, side, 4), np.float32)
    for row in range(side):
        for column in range(side):
            f = owners[row, column]
            if f < 0:
                samples[row, column, 3] = 0
                continue
            w = weights[row, column]
            for c in range(3):
                w[c] *= places[faces[f, c], 2] / inverse[row, column]
            for c in range(3):
                value = w[0] * colours[faces[f, 0], c] + w[1] * colours[faces[f, 1], c] + w[2] * colours[faces[f, 2], c]
                samples[row, column, c] = min(max(value, np.float32(0)), np.float32(1))
    return samples, owners, weights, inverse


@numba.njit(cache=True, fastmath=True, inline="always")
def _cover(f, a, b, c, owners, inverse, weights):
    """Enter a triangle with corners (x, y, 1/z) where it is nearest; `weights` in the picture's plane."""
    area = (b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1])
    if min(a[2], b[2], c[2]) <= 0 or abs(area) < 1e-9:
        return
    side = len(owners)
    left = max(0, math.ceil(min(a[0], b[0], c[0]) - 0.5))
    right = min(side - 1, math.floor(max(a[0], b[0], c[0]) - 0.5))
    top = max(0, math.ceil(min(a[1], b[1], c[1]) - 0.5))
    bottom = min(side - 1, math.floor(max(a[1], b[1], c[1]) - 0.5))
    for row in range(top, bottom + 1):
        v = np.float32(row + 0.5)
        for column in range(left, right + 1):
            u = np.float32(column + 0.5)
            w0 = ((b[0] - u) * (c[1] - v) - (c[0] - u) * (b[1] - v)) / area
            w1 = ((c[0] - u) * (a[1] - v) - (a[0] - u) * (c[1] - v)) / area
            w2 = 1 - w0 - w1
            if w0 < 0 or w1 < 0 or w2 < 0:
                continue
            near = w0 * a[2] + w1 * b[2] + w2 * c[2]
            if near > inverse[row, column]:
                inverse[row, column] = near
                owners[row, column] = f
                weights[row, column, 0], weights[row, column, 1], weights[row, column, 2] = w0, w1, w2


@numba.njit(cache=True, fastmath=True)
def _follow(vertices, faces, colours, viewmat, samples, owners, weights, inverse, focal, gradients):
    """Gradients of `vertices` and `colours` from those of the samples [side,side,4]."""
    side = len(owners)
    pushes = np.zeros((side, side, 2), np.float32)
    for row in range(side):
        for column in range(side):
            if column + 1 < side:
                _push(0, row, column, row, column + 1, samples, owners, inverse, focal, gradients, pushes)
            if row + 1 < side:
                _push(1, row, column, row + 1, column, samples, owners, inverse, focal, gradients, pushes)
    of_vertices, of_colours = np.zeros_like(vertices), np.zeros_like(colours)
    half = side / 2
    for row in range(side):
        for column in range(side):
            f = owners[row, column]
            if f < 0:
                continue
            scale = focal * inverse[row, column]
            x, y = (column + 0.5 - half) / focal, (row + 0.5 - half) / focal
            px, py = pushes[row, column]
            for c in range(3):
                pulled = scale * (px * (viewmat[0, c] - x * viewmat[2, c]) + py * (viewmat[1, c] - y * viewmat[2, c]))
                inside = 0 < samples[row, column, c] < 1
                for k in range(3):
                    corner, w = faces[f, k], weights[row, column, k]
                    of_vertices[corner, c] += w * pulled
                    if inside:
                        of_colours[corner, c] += w * gradients[row, column, c]
    return of_vertices, of_colours


@numba.njit(cache=True, fastmath=True, inline="always")
def _push(axis, row, column, below, beside, samples, owners, inverse, focal, gradients, pushes):
    """Add what the border between two neighbouring samples wants of what lies there."""
    first, second = owners[row, column], owners[below, beside]
    if first < 0 and second < 0:
        return
    force = np.float32(0)
    for c in range(4):
        slope = samples[row, column, c] - samples[below, beside, c]
        force += (gradients[row, column, c] + gradients[below, beside, c]) * slope
    force *= np.float32(0.5)
    near, far = inverse[row, column], inverse[below, beside]
    if first >= 0 and second >= 0 and abs(1 / near - 1 / far) < STEEP / (focal * min(near, far)):
        pushes[row, column, axis] += 0.5 * force
        pushes[below, beside, axis] += 0.5 * force
    elif near > far:
        pushes[row, column, axis] += force
    else:
        pushes[below, beside, axis] += force
