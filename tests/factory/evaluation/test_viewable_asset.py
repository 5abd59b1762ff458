"""Files of other methods: another axis up, another scale, meshes in PLY."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from eval.config import Up
from factory.evaluation.extent import gaussians_in
from factory.evaluation.viewable_asset import Solid, Splats, Turn, read_shape
from recon.config import OrbitConfig
from recon.gaussians import Gaussians, init_ball
from recon.ply import write_ply

TURN = Turn(elevation=0.3, size=48, orbit=OrbitConfig(num_views=4))
TO_FOREIGN: list[tuple[Up, list[list[int]]]] = [
    ("z", [[1, 0, 0], [0, 0, -1], [0, 1, 0]]),
    ("z-down", [[1, 0, 0], [0, 0, 1], [0, -1, 0]]),
    ("y-down", [[1, 0, 0], [0, -1, 0], [0, 0, -1]]),
]
"""Where our x, y, z go in a world with another axis up."""


def lump() -> Gaussians:
    """Round opaque Gaussians in a box that is longest in y, redder towards +y."""
    gaussians = init_ball(600, generator=torch.Generator().manual_seed(0))
    gaussians.means *= torch.tensor([0.5, 1.0, 0.3])
    gaussians.scales[:] = -3.0
    gaussians.opacities[:] = 4.0
    gaussians.sh0[:, 0] = torch.stack([3 * gaussians.means[:, 1], *2 * [torch.zeros(600)]], 1)
    return gaussians


def read(tmp_path: Path, gaussians: Gaussians, up: Up = "y", normalise: bool = False) -> Splats:
    write_ply(tmp_path / "a.ply", gaussians)
    shape = read_shape((tmp_path / "a.ply").read_bytes(), "a.ply", up=up, normalise=normalise)
    assert isinstance(shape, Splats)
    return shape


@pytest.mark.parametrize(("up", "rows"), TO_FOREIGN)
def test_another_axis_up_and_another_scale_are_the_same_pictures(tmp_path: Path, up: Up, rows: list[list[int]]) -> None:
    own, way = lump(), torch.tensor(rows, dtype=torch.float32)
    means, scales = 0.2 * own.means @ way.T + torch.tensor([3.0, -1.0, 0.5]), own.scales + float(np.log(0.2))
    here = read(tmp_path, own, normalise=True)
    there = read(tmp_path, replace(own, means=means, scales=scales), up, True)
    expected, found = here.pictures(TURN).astype(int), there.pictures(TURN).astype(int)
    assert expected[..., 3].max() > 200
    assert np.abs(found - expected).max() <= 2
    assert there.depths(TURN) == pytest.approx(here.depths(TURN), abs=1e-3)
    ends = [np.ptp(shape.points(2000), axis=0) for shape in (here, there)]
    assert ends[1] == pytest.approx(ends[0], abs=0.1)
    assert ends[1][1] > 1.4 * ends[1][0]


def test_stray_gaussians_do_not_shrink_the_object() -> None:
    own = lump()
    own.means[0] = 100.0
    centres = gaussians_in(own).means[1:]
    assert float(centres.norm(dim=1).max()) == pytest.approx(1, abs=0.1)
    own.opacities[:] = -4.0
    with pytest.raises(ValueError, match="no Gaussian is half opaque"):
        gaussians_in(own)
    with pytest.raises(ValueError, match="all Gaussians lie in one point"):
        gaussians_in(replace(lump(), means=torch.zeros(600, 3)))


def test_a_mesh_in_ply_is_the_mesh_in_glb() -> None:
    box = trimesh.creation.box((0.3, 1.0, 0.5))
    box.visual.vertex_colors = np.tile([255, 0, 0, 255], (8, 1))  # pyright: ignore
    expected = read_shape(bytes(box.export(file_type="glb")), "box.glb").pictures(TURN)  # pyright: ignore
    lying = box.copy()
    lying.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, [1, 0, 0]))  # y becomes z
    for mesh, up in ((box, "y"), (lying, "z")):
        shape = read_shape(bytes(mesh.export(file_type="ply")), "box.ply", up=up)  # pyright: ignore
        assert isinstance(shape, Solid)
        assert np.abs(shape.pictures(TURN).astype(int) - expected).mean() < 1


def test_gaussians_with_faces_beside_them_are_gaussians(tmp_path: Path) -> None:
    write_ply(tmp_path / "a.ply", lump())
    plain = (tmp_path / "a.ply").read_bytes()
    faces = b"element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    shape = read_shape(plain.replace(b"end_header\n", faces, 1) + b"\3" + bytes(12), "a.ply")
    assert isinstance(shape, Splats)
    assert torch.equal(shape.gaussians.sh0, lump().sh0)
