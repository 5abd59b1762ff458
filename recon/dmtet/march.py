"""Marching tetrahedra with gradients: the surface in a tetrahedral grid where the signed distance is 0, `march`."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recon.dmtet.grid import EDGES, Grid


def march(grid: Grid, distances: Tensor, places: Tensor, colours: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Marching tetrahedra: the surface where the distance is 0.

    Args:
        distances: [G] signed, negative inside. places: [G,3] of the vertices, deformed. colours: [G,3].

    Returns:
        vertices [V,3], faces int32 [F,3] counter-clockwise seen from outside, and the vertices' colours [V,3];
        gradients reach all three arguments. Closed and manifold where it does not reach the grid's end.
    """
    crossed, faces = _triangles(distances.detach().numpy(), grid.edges, grid.tetrahedra, grid.edges_of)
    vertices, of_vertices = _Crossings.apply(distances, places, colours, grid.edges[crossed])
    return vertices, torch.from_numpy(faces), of_vertices


class _Crossings(torch.autograd.Function):
    """Places [V,3] and colours [V,3] where the distance is 0 on edges [V,2]."""

    @staticmethod
    def forward(ctx: Any, distances: Tensor, places: Tensor, colours: Tensor, ends: NDArray) -> tuple[Tensor, Tensor]:
        ctx.known = distances.detach().numpy(), places.detach().numpy(), colours.detach().numpy(), ends
        vertices, between = _cross(*ctx.known)
        return torch.from_numpy(vertices), torch.from_numpy(between)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        found = _uncross(*ctx.known, *(gradient.contiguous().numpy() for gradient in gradients))
        return *(torch.from_numpy(array) for array in found), None


@numba.njit(cache=True)
def _cross(distances, places, colours, ends):
    vertices, between = np.empty((len(ends), 3), np.float32), np.empty((len(ends), 3), np.float32)
    for v in range(len(ends)):
        a, b = ends[v]
        share = distances[a] / (distances[a] - distances[b])
        for c in range(3):
            vertices[v, c] = places[a, c] + share * (places[b, c] - places[a, c])
            between[v, c] = colours[a, c] + share * (colours[b, c] - colours[a, c])
    return vertices, between


@numba.njit(cache=True)
def _uncross(distances, places, colours, ends, of_vertices, of_between):
    of_distances = np.zeros_like(distances)
    of_places, of_colours = np.zeros_like(places), np.zeros_like(colours)
    for v in range(len(ends)):
        a, b = ends[v]
        across = distances[a] - distances[b]
        share = distances[a] / across
        along = np.float32(0)
        for c in range(3):
            along += of_vertices[v, c] * (places[b, c] - places[a, c]) + of_between[v, c] * (
                colours[b, c] - colours[a, c]
            )
            of_places[a, c] += (1 - share) * of_vertices[v, c]
            of_places[b, c] += share * of_vertices[v, c]
            of_colours[a, c] += (1 - share) * of_between[v, c]
            of_colours[b, c] += share * of_between[v, c]
        of_distances[a] -= along * distances[b] / across**2
        of_distances[b] += along * distances[a] / across**2
    return of_distances, of_places, of_colours


@numba.njit(cache=True)
def _triangles(distances, edges, tetrahedra, edges_of):
    """The edges [V] that the vertices lie on, and the faces [F,3]."""
    inside = distances < 0
    numbers = np.full(len(edges), -1, np.int32)
    crossed = np.empty(len(edges), np.int32)
    count = 0
    for e in range(len(edges)):
        if inside[edges[e, 0]] != inside[edges[e, 1]]:
            numbers[e], crossed[count] = count, e
            count += 1
    faces = np.empty((2 * len(tetrahedra), 3), np.int32)
    total = 0
    for t in range(len(tetrahedra)):
        four = tetrahedra[t]
        code = inside[four[0]] + 2 * inside[four[1]] + 4 * inside[four[2]] + 8 * inside[four[3]]
        for k in range(_COUNTS[code]):
            for c in range(3):
                faces[total, c] = numbers[edges_of[t, _CASES[code, k, c]]]
            total += 1
    return crossed[:count].copy(), faces[:total].copy()


def _cases() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many triangles [16], and on which edges [16,2,3], a tetrahedron of positive volume has by who is inside."""
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], float)
    middles = corners[EDGES].mean(1)
    edge = {tuple(pair): number for number, pair in enumerate(EDGES.tolist())}
    counts, cases = np.zeros(16, int), np.zeros((16, 2, 3), int)
    for code in range(1, 15):
        within = [k for k in range(4) if code >> k & 1]
        without = [k for k in range(4) if not code >> k & 1]
        if len(within) == 2:
            (a, b), (c, d) = within, without
            ring = [edge[tuple(sorted(pair))] for pair in ((a, c), (a, d), (b, d), (b, c))]
            parts = [[ring[0], ring[1], ring[2]], [ring[0], ring[2], ring[3]]]
        else:
            parts = [[edge[tuple(sorted((a, b)))] for a in within for b in without]]
        outwards = corners[without].mean(0) - corners[within].mean(0)
        for k, part in enumerate(parts):
            x, y, z = middles[part]
            cases[code, k] = part if np.cross(y - x, z - x) @ outwards > 0 else part[::-1]
        counts[code] = len(parts)
    return counts, cases


_COUNTS, _CASES = _cases()
