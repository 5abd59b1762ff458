"""Measure how rough a closed mesh is, with gradients: `roughness`."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def roughness(vertices: Tensor, faces: Tensor) -> Tensor:
    """Mean squared distance of vertices [V,3] from the mean of their neighbours; faces int32 [F,3] of a closed mesh."""
    return _Roughness.apply(vertices, faces)


class _Roughness(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vertices: Tensor, faces: Tensor) -> Tensor:
        apart, counts = _apart(vertices.detach().numpy(), faces.numpy())
        ctx.known = apart, counts, faces.numpy()
        return torch.tensor(float((apart**2).sum() / max(len(apart), 1)))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return torch.from_numpy(_followed(*ctx.known)) * gradients[0], None


@numba.njit(cache=True)
def _apart(vertices: NDArray, faces: NDArray) -> tuple[NDArray, NDArray]:
    """Vertices less the mean of their neighbours, [V,3], and how many these are [V]."""
    apart, counts = np.zeros_like(vertices), np.zeros(len(vertices), np.float32)
    for f in range(len(faces)):
        for k in range(3):  # each edge of a closed mesh comes once in either direction
            a, b = faces[f, k], faces[f, (k + 1) % 3]
            counts[a] += 1
            for c in range(3):
                apart[a, c] += vertices[b, c]
    for v in range(len(vertices)):
        for c in range(3):
            apart[v, c] = vertices[v, c] - apart[v, c] / max(counts[v], 1)
    return apart, counts


@numba.njit(cache=True)
def _followed(apart: NDArray, counts: NDArray, faces: NDArray) -> NDArray:
    scale = np.float32(2 / max(len(apart), 1))
    found = apart * scale
    for f in range(len(faces)):
        for k in range(3):
            a, b = faces[f, k], faces[f, (k + 1) % 3]
            for c in range(3):
                found[b, c] -= scale * apart[a, c] / counts[a]
    return found
