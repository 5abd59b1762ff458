"""Consistency without truth: a rigid object has none of it to lose, and each kind of contradiction shows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh

from eval.consistency import correspondences, feature_consistency, flow_residual, residual
from factory.evaluation.viewable_asset import Turn, read_shape
from recon.config import OrbitConfig
from recon.perceptual import load_perceptual

TURN = Turn(elevation=0.3, size=64, orbit=OrbitConfig(num_views=16))


@pytest.fixture(scope="module")
def box() -> tuple[np.ndarray, np.ndarray]:
    """Views [16,64,64,4] and depth of a box with patches of colour."""
    mesh = trimesh.creation.box((1.0, 1.2, 0.8)).subdivide().subdivide()
    colours = np.random.default_rng(0).integers(0, 256, (len(mesh.faces), 4), dtype=np.uint8)
    mesh.visual.face_colors = colours | np.array([0, 0, 0, 255], np.uint8)  # pyright: ignore
    shape = read_shape(bytes(mesh.export(file_type="glb")), "box.glb", fine=True)  # pyright: ignore
    return shape.pictures(TURN), shape.depths(TURN)


def test_correspondences_are_the_same_surface_points(box) -> None:
    depth, cameras = torch.from_numpy(box[1]), TURN.cameras
    here, there = correspondences(depth[0], depth[0], cameras, 0, 0)
    assert len(here) == (depth[0] > 0).sum()
    assert here == pytest.approx(there, abs=1e-4)
    here, there = correspondences(depth[0], depth[8], cameras, 0, 8)
    top = here[:, 1] < 0  # only the lid is seen from behind too
    assert len(here) < 0.5 * (depth[0] > 0).sum()
    assert top.float().mean() > 0.9


def test_frames_of_one_object_agree_and_swapped_ones_do_not(box) -> None:
    network = load_perceptual("pocket")
    frames, depth = box[0][..., :3], box[1]
    true = feature_consistency(frames, depth, TURN.cameras, network)
    rolled = feature_consistency(np.concatenate([frames[:1], frames[:0:-1]]), depth, TURN.cameras, network)
    assert true is not None
    assert rolled is not None
    assert rolled + 0.05 < true <= 1
    assert feature_consistency(frames, np.zeros_like(depth), TURN.cameras, network) is None


def test_residual_and_flow_measure_what_the_fit_leaves(box) -> None:
    network = load_perceptual("pocket")
    renders = box[0]
    frames = renders[..., :3]
    none = pytest.approx(0, abs=1e-6)
    assert residual(frames, frames, network) == {"residual_psnr": 100, "residual_lpips_pocket": none}
    assert flow_residual(frames, renders) == pytest.approx(0, abs=1e-4)
    moved = np.roll(frames, 2, 2)
    assert flow_residual(moved, renders) == pytest.approx(2 / 64, rel=0.35)
    assert residual(moved, frames, network)["residual_psnr"] < 25
    assert flow_residual(frames, np.zeros_like(renders)) is None
