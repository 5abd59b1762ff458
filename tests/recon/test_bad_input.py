"""What a generator may hand to the fit by mistake: a clear error, or Gaussians that a file can hold."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from recon.cameras import OrbitConfig, turntable
from recon.config import FitConfig, MeshConfig
from recon.mesh import mesh_of
from recon.nerf import fit_nerf
from recon.nerf_config import NerfConfig
from recon.ply import read_ply, write_ply
from recon.refine import LoopConfig, Turntable, reconstruct

QUICK = FitConfig(iterations=6, num_points=100, device="cpu")


def disc(views: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A red disc over white, uint8 [V,S,S,3], and its mask [V,S,S]."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    mask = np.broadcast_to((np.hypot(x, y) < size / 4) * np.uint8(255), (views, size, size)).copy()
    return np.where(mask[..., None] > 0, np.uint8([220, 30, 30]), np.uint8(255)), mask


def reconstructed(frames, masks, elevation=0.3, config=QUICK):
    return reconstruct(Turntable(frames=frames, masks=masks, elevation=elevation), LoopConfig(fit=config))


def fitted(tmp_path, frames, masks):
    gaussians, history = reconstructed(frames, masks)
    write_ply(tmp_path / "asset.ply", gaussians)
    assert all(np.isfinite(value) for part in history for value in part["losses"].values())
    return read_ply(tmp_path / "asset.ply")


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("size", [16, 33])
def test_few_views_and_small_frames_are_fitted(tmp_path, views, size):
    assert len(fitted(tmp_path, *disc(views, size)))


@pytest.mark.parametrize("colour", [0, 255])
def test_plain_frames_with_full_masks_are_fitted(tmp_path, colour):
    frames = np.full((4, 32, 32, 3), colour, np.uint8)
    assert len(fitted(tmp_path, frames, np.full((4, 32, 32), 255, np.uint8)))


def test_one_empty_mask_among_others_is_fitted(tmp_path):
    frames, masks = disc(4, 32)
    masks[2] = 0
    assert len(fitted(tmp_path, frames, masks))


def test_white_frames_without_a_mask_are_refused():
    frames = np.full((4, 32, 32, 3), 255, np.uint8)
    with pytest.raises(ValueError, match="no mask holds an object"):
        reconstructed(frames, np.zeros((4, 32, 32), np.uint8))


def test_floating_point_frames_are_refused_whatever_they_hold():
    frames, masks = disc(4, 32)
    with pytest.raises(ValueError, match="uint8"):
        reconstructed(np.where(masks[..., None] > 0, np.nan, frames / 255), masks)


@pytest.mark.parametrize(
    ("shape", "message"), [((4, 15, 15, 3), "at least 16"), ((4, 32, 48, 3), "square"), ((0, 32, 32, 3), "num_views")]
)
def test_unusable_sizes_are_named(shape, message):
    frames = np.full(shape, 200, np.uint8)
    with pytest.raises(ValueError, match=message):
        reconstructed(frames, np.full(shape[:3], 255, np.uint8))


@pytest.mark.parametrize("elevation", [float("nan"), float("inf")])
def test_an_elevation_that_is_no_number_is_refused(elevation):
    frames, masks = disc(4, 32)
    with pytest.raises(ValueError, match="elevation"):
        reconstructed(frames, masks, elevation)


def test_parameters_that_leave_the_numbers_are_never_written(tmp_path):
    gaussians, _ = reconstructed(*disc(2, 16), config=replace(QUICK, iterations=1))
    gaussians.opacities[0] = torch.nan
    with pytest.raises(ValueError, match="opacity"):
        write_ply(tmp_path / "asset.ply", gaussians)
    assert not (tmp_path / "asset.ply").exists()


@pytest.mark.parametrize("views", [1, 3])
@pytest.mark.parametrize("given", ["disc", "white under full masks"])
def test_a_voxel_field_of_odd_views_is_finite(views, given):
    frames, masks = disc(views, 16)
    if given == "white under full masks":
        frames, masks = np.full_like(frames, 255), np.full_like(masks, 255)
    cameras = turntable(0.3, 16, OrbitConfig(num_views=views))
    field = fit_nerf(frames, masks, cameras, NerfConfig(iterations=5, size=16, resolution=8, samples=8)).field
    assert torch.isfinite(field.logits).all()
    assert all(torch.isfinite(image).all() for image in field.render(turntable(1.0, 16)))


def test_masks_that_leave_no_voxel_are_refused():
    frames, masks = disc(3, 16)
    masks[1] = 0
    with pytest.raises(ValueError, match="no voxel in common"):
        fit_nerf(
            frames, masks, turntable(0.3, 16, OrbitConfig(num_views=3)), NerfConfig(size=16, resolution=8, samples=8)
        )


def test_the_mesh_of_a_fit_to_one_view_is_finite_and_closed():
    gaussians, _ = reconstructed(*disc(1, 32))
    mesh = mesh_of(gaussians, MeshConfig(resolution=16, texture=0))
    assert np.isfinite(mesh.vertices).all()
    assert mesh.is_watertight


def test_a_fit_that_is_nowhere_dense_is_no_mesh_but_a_reason():
    frames, masks = disc(4, 32)
    gaussians, _ = reconstructed(np.full_like(frames, 255), np.full_like(masks, 255))
    with pytest.raises(ValueError, match=r"lower mesh\.density"):
        mesh_of(gaussians, MeshConfig(resolution=16, density=3.0))
