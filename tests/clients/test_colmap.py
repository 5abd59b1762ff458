"""pycolmap reads the COLMAP folder: the object's points fall onto its masks through the cameras that it read."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from factory.outputs.colmap import colmap_files
from factory.outputs.export_settings import ExportConfig
from factory.outputs.training_formats import pictures_of
from recon.gaussians import Gaussians


def test_pycolmap_sees_the_points_where_the_pictures_have_them(tmp_path: Path) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    random = torch.Generator().manual_seed(0)
    gaussians = Gaussians(
        means=torch.rand(200, 3, generator=random) * torch.tensor([0.9, 0.3, 0.2]),
        quats=torch.tensor([1.0, 0, 0, 0]).repeat(200, 1),
        scales=torch.full((200, 3), 0.03).log(),
        opacities=torch.full((200,), 4.0),
        sh0=torch.tensor([1.0, -1.0, -1.0]).expand(200, 1, 3) * 1.7,
        shN=torch.zeros(200, 0, 3),
    )
    pictures = pictures_of(gaussians, 0.3, ExportConfig(format="colmap", size=64, num_views=5))
    for name, data in colmap_files(pictures, gaussians).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    read = pycolmap.Reconstruction(str(tmp_path / "sparse/0"))
    assert (read.num_images(), read.num_points3D()) == (5, 200)
    points = np.array([point.xyz for point in read.points3D.values()])
    assert {tuple(point.color) for point in read.points3D.values()} == {(250, 5, 5)}
    for image in read.images.values():
        mask = np.asarray(Image.open(io.BytesIO((tmp_path / "images" / image.name).read_bytes())))[..., 3]
        camera = read.cameras[image.camera_id]
        pixels = np.array([camera.img_from_cam(image.cam_from_world() * point) for point in points])
        assert (mask[pixels[:, 1].astype(int), pixels[:, 0].astype(int)] > 60).all()
