"""Marching tetrahedra beside balls and boxes whose volume is known, and its gradients beside differences."""

import numpy as np
import pytest
import torch
from trimesh import Trimesh

from recon.dmtet.grid import grid_about, lattice
from recon.dmtet.march import march

STEP, LOW, CUBES = 0.1, np.array([-1.1, -1.0, -1.05]), np.array([22, 20, 21])


def distances_to(shape: str, places: np.ndarray) -> np.ndarray:
    if shape == "ball":
        return np.linalg.norm(places, axis=1) - 0.7
    if shape == "box":
        return (np.abs(places) - [0.6, 0.45, 0.3]).max(1)
    return np.minimum(*(np.linalg.norm(places - [x, 0, 0], axis=1) - 0.35 for x in (-0.5, 0.5)))


VOLUMES = {"ball": 4 / 3 * np.pi * 0.7**3, "box": 1.2 * 0.9 * 0.6, "two balls": 8 / 3 * np.pi * 0.35**3}


def about(shape: str):
    everywhere = distances_to(shape, lattice(LOW, STEP, CUBES))
    grid, kept = grid_about(np.abs(everywhere) < 2 * STEP, LOW, STEP, CUBES)
    return grid, torch.from_numpy(everywhere[kept].astype(np.float32))


@pytest.mark.parametrize("shape", VOLUMES)
def test_the_surface_is_a_closed_manifold_of_the_shapes_volume(shape):
    grid, distances = about(shape)
    places = torch.from_numpy(grid.places)
    vertices, faces, colours = march(grid, distances, places, places.clone())
    mesh = Trimesh(vertices.numpy(), faces.numpy(), process=False)
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.body_count == (2 if shape == "two balls" else 1)
    assert mesh.volume == pytest.approx(VOLUMES[shape], rel=0.06), "and faces look outwards"
    assert torch.allclose(colours, vertices, atol=1e-6), "colours are interpolated as places are"


def test_tetrahedra_have_positive_volume_and_fill_the_band():
    grid, _ = about("ball")
    a, b, c, d = grid.places[grid.tetrahedra].astype(float).transpose(1, 0, 2)
    volumes = np.einsum("ti,ti->t", np.cross(b - a, c - a), d - a) / 6
    assert volumes == pytest.approx(np.full(len(volumes), STEP**3 / 12), rel=1e-3)
    assert len(np.unique(np.sort(grid.tetrahedra, 1), axis=0)) == len(grid.tetrahedra)
    assert (grid.edges[grid.edges_of][:, 5] == np.sort(grid.tetrahedra[:, 2:], 1)).all()


@pytest.mark.parametrize("which", ["distances", "places", "colours"])
def test_gradients_are_those_of_differences(which):
    grid, distances = about("ball")
    generator = torch.Generator().manual_seed(0)
    given = {"distances": distances, "places": torch.from_numpy(grid.places), "colours": torch.rand(
        len(distances), 3, generator=generator)}  # fmt: skip
    pull = torch.randn(10**5, 6, generator=generator)

    def total(values):
        vertices, _, colours = march(grid, **given | {which: values})
        return (torch.cat([vertices, colours], 1).double() * pull[: len(vertices)]).sum()

    values = given[which].clone().requires_grad_()
    total(values).backward()
    way = torch.randn(values.shape, generator=generator) * 1e-4
    way[given["distances"].abs() < 1e-3] = 0  # no sign changes on the way
    with torch.no_grad():
        measured = float(total(given[which] + way) - total(given[which] - way)) / 2
    assert float((values.grad * way).sum()) == pytest.approx(measured, rel=0.02)
