"""Shapes made from shapes: where corners, normals, textures and companions end up."""

import io
import math

import numpy as np
import pytest
import trimesh
from PIL import Image

from factory.training.render.shape_variations import Warp, beside, warped
from recon.meshes.load import Mesh, load_mesh, render_turntable


def ball() -> Mesh:
    return loaded(trimesh.creation.icosphere(subdivisions=3))


def loaded(mesh: trimesh.Trimesh) -> Mesh:
    stream = io.BytesIO()
    mesh.export(stream, file_type="glb", include_normals=True)
    return load_mesh(stream.getvalue())


def painted(color: tuple[int, int, int], textured: bool) -> Mesh:
    box = trimesh.creation.box((1, 1, 1))
    if textured:
        picture = Image.new("RGB", (8, 4), color)
        material = trimesh.visual.material.PBRMaterial(baseColorTexture=picture)
        box.visual = trimesh.visual.TextureVisuals(uv=np.full((len(box.vertices), 2), 0.5), material=material)
    else:
        box.visual.face_colors = np.tile([*color, 255], (len(box.faces), 1))
    return loaded(box)


def test_a_stretched_ball_is_the_ellipsoid_with_its_normals() -> None:
    factors = np.array([0.5, 2.0, 1.0])
    mesh = warped(ball(), Warp(factors=tuple(factors)))
    extents = np.ptp(mesh.corners.reshape(-1, 3), axis=0)
    assert extents / extents[1] == pytest.approx(factors / 2, abs=0.02)
    assert np.linalg.norm(mesh.corners, axis=-1).max() == pytest.approx(1)
    outward = mesh.corners / (factors / 2) ** 2
    outward /= np.linalg.norm(outward, axis=-1, keepdims=True)
    assert (mesh.normals * outward).sum(-1).min() > 0.98


@pytest.mark.parametrize("warp", [Warp(lean=(0.4, -0.3)), Warp(taper=0.5), Warp(twist=1.0, factors=(1.5, 1, 0.7))])
def test_bent_normals_stand_on_the_bent_faces(warp: Warp) -> None:
    mesh = warped(ball(), warp)
    edges = mesh.corners[:, 1:] - mesh.corners[:, :1]
    faces = np.cross(edges[:, 0], edges[:, 1])
    faces /= np.linalg.norm(faces, axis=-1, keepdims=True)
    assert np.median((mesh.normals.mean(1) * faces).sum(-1)) > 0.99
    assert np.abs(np.linalg.norm(mesh.normals, axis=-1) - 1).max() < 1e-5


def test_lean_taper_and_twist_do_what_they_say() -> None:
    points = np.array([[0.5, 0.5, 0.0], [0.5, -0.5, 0.0]])
    leaning = Warp(lean=(0.2, -0.4))(points)
    assert leaning == pytest.approx(points + np.array([[0.1, 0, -0.2], [-0.1, 0, 0.2]]))
    assert Warp(taper=0.5)(points)[:, 0] == pytest.approx([0.625, 0.375])
    turned = Warp(twist=math.pi)(points)
    assert np.abs(turned[:, 2]) == pytest.approx(0.5)
    assert turned[0, 2] == pytest.approx(-turned[1, 2])
    assert Warp().idle
    assert not Warp(taper=0.1).idle
    assert Warp()(points) == pytest.approx(points)


@pytest.mark.parametrize("textured", [False, True])
def test_a_companion_stands_on_the_same_ground_with_its_own_colours(textured: bool) -> None:
    mesh = beside(painted((255, 0, 0), textured), painted((0, 0, 255), textured), scale=0.5, azimuth=math.pi / 2)
    first, second = mesh.corners[:12].reshape(-1, 3), mesh.corners[12:].reshape(-1, 3)
    assert first[:, 1].min() == pytest.approx(second[:, 1].min(), abs=1e-6)
    assert np.ptp(second, axis=0) == pytest.approx(np.ptp(first, axis=0) / 2, rel=1e-4)
    assert second[:, 0].min() > first[:, 0].max()
    assert np.linalg.norm(mesh.corners, axis=-1).max() == pytest.approx(1)
    view = render_turntable(mesh, 0.0, 96, num_views=1)[0].astype(int)
    red = (view[..., 0] > view[..., 2] + 50) & (view[..., 3] > 0)
    blue = (view[..., 2] > view[..., 0] + 50) & (view[..., 3] > 0)
    assert red.sum() == pytest.approx(4 * blue.sum(), rel=0.25)
    assert red.any()
    assert np.argwhere(blue)[:, 1].min() > np.argwhere(red)[:, 1].max()
