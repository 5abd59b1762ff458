"""A mesh of fitted Gaussians, beside the shape they were fitted to, and in the eyes of Khronos' own validator."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from scipy.spatial import cKDTree

from recon.cameras import turntable
from recon.config import FitConfig, MeshConfig
from recon.fit import fit
from recon.gaussians import Gaussians
from recon.mesh import glb_bytes, mesh_of


@pytest.fixture(scope="module")
def gaussians() -> Gaussians:
    """Fitted to sixteen views of a box, red in front (z > 0) and blue behind."""
    from recon.meshes.load import load_mesh, render_turntable

    box = trimesh.creation.box((1.0, 0.7, 0.8))
    box.visual.face_colors = np.where(box.triangles_center[:, 2:] > 0.0, [[220, 40, 40, 255]], [[40, 40, 220, 255]])
    frames = render_turntable(load_mesh(box.export(file_type="glb"), "glb"), 0.3, 48)
    config = FitConfig(iterations=200, num_points=1000, device="cpu")
    return fit(frames, None, turntable(0.3, 48), config).gaussians


@pytest.fixture(scope="module")
def mesh(gaussians: Gaussians) -> trimesh.Trimesh:
    return mesh_of(gaussians, MeshConfig(resolution=48, faces=4000, texture=0))


def test_it_is_a_closed_surface_near_the_shape(mesh: trimesh.Trimesh) -> None:
    size = np.array([1.0, 0.7, 0.8])
    truth = trimesh.creation.box(2 * size / np.linalg.norm(size))  # in the unit sphere, as it was rendered
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert 0.7 < mesh.volume / truth.volume < 1.5
    ours, theirs = (np.asarray(trimesh.sample.sample_surface(m, 4000, seed=1)[0]) for m in (mesh, truth))
    assert cKDTree(ours).query(theirs)[0].mean() < 0.1
    assert cKDTree(theirs).query(ours)[0].mean() < 0.1


def test_its_colours_lie_where_the_shapes_do(mesh: trimesh.Trimesh) -> None:
    colours = np.asarray(mesh.visual.vertex_colors)[:, :3].astype(int)
    front, back = mesh.vertices[:, 2] > 0.4, mesh.vertices[:, 2] < -0.4
    assert (colours[front, 0] > colours[front, 2]).mean() > 0.8
    assert (colours[back, 2] > colours[back, 0]).mean() > 0.8


@pytest.mark.parametrize("texture", [0, 128])
def test_khronos_validator_finds_no_error(
    gaussians: Gaussians, gltf_issues: Callable[[Path], dict[str, Any]], texture: int, tmp_path: Path
) -> None:
    mesh = mesh_of(gaussians, MeshConfig(resolution=48, faces=4000, texture=texture))
    (tmp_path / "mesh.glb").write_bytes(glb_bytes(mesh))
    report = gltf_issues(tmp_path / "mesh.glb")
    assert report["issues"]["numErrors"] == 0, report["issues"]["messages"]
    assert report["issues"]["numWarnings"] == 0, report["issues"]["messages"]
    assert report["info"]["totalTriangleCount"] == len(mesh.faces)
