"""The differentiable pictures beside the renderer of meshes, and their gradients beside differences."""

import numpy as np
import pytest
import torch
import trimesh

from recon.cameras import OrbitConfig, turntable
from recon.dmtet.pictures import look, picture
from recon.mesh import glb_bytes
from recon.meshes.load import load_mesh, render_mesh

SIZE = 64
CAMERAS = turntable(0.3, SIZE, OrbitConfig(num_views=3))


def ball(radius: float = 0.7) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Vertices, faces and colours that change over the ball."""
    made = trimesh.creation.icosphere(subdivisions=5, radius=radius)
    vertices = torch.tensor(made.vertices, dtype=torch.float32)
    return vertices, torch.tensor(made.faces, dtype=torch.int32), 0.5 + 0.4 * vertices / radius


def drawn(vertices, faces, colours, view=0):
    return torch.cat(picture(vertices, faces, colours, CAMERAS.viewmats[view], CAMERAS.Ks[view], SIZE), -1)


def test_a_picture_is_what_the_renderer_of_meshes_shows():
    vertices, faces, colours = ball()
    painted = (255 * colours).round().byte().numpy()
    mesh = trimesh.Trimesh(vertices.numpy(), faces.numpy(), vertex_colors=painted, process=False)
    shown = render_mesh(load_mesh(glb_bytes(mesh), in_place=True), CAMERAS)
    for view in range(len(CAMERAS)):
        ours = (255 * drawn(vertices, faces, colours, view)).numpy()
        assert np.abs(ours - shown[view]).mean() < 0.5
        assert (np.abs(ours - shown[view])[..., 3] > 1).mean() < 1e-3, "the outlines are the same"


def test_a_surface_in_front_hides_one_behind():
    near, faces, _ = ball(0.3)
    away = near - 0.6 * CAMERAS.viewmats[0, 2, :3] * torch.ones(1)
    vertices = torch.cat([near * 1.5, away])
    colours = torch.cat([torch.full_like(near, 0.2), torch.full_like(near, 0.9)])
    shown = drawn(vertices, torch.cat([faces, faces + len(near)]), colours)
    assert shown[SIZE // 2, SIZE // 2, 0] == pytest.approx(0.9, abs=1e-5), "what lies towards the eye"
    assert (shown[..., 0] - 0.2).abs().min() < 1e-5


@pytest.mark.parametrize("motion", ["grow", "right", "up"])
def test_gradients_of_outlines_are_those_of_differences(motion):
    """By a loss that weighs coverage by place, moved by a few samples so that whole samples change."""
    vertices, faces, colours = ball()
    ways = {"grow": vertices / 0.7, "right": vertices * 0 + torch.tensor([1.0, 0, 0]),
            "up": vertices * 0 + torch.tensor([0, 1.0, 0])}  # fmt: skip
    ramp = torch.linspace(0, 1, SIZE)
    weights = ramp[None, :] + 2 * ramp.flip(0)[:, None]

    def total(moved):
        return (drawn(moved, faces, colours)[..., 3] * weights).sum()

    moved = vertices.clone().requires_grad_()
    total(moved).backward()
    step = 0.03 * ways[motion]
    measured = float(total(vertices + step) - total(vertices - step)) / 2
    assert float((moved.grad * step).sum()) == pytest.approx(measured, rel=0.1)


def test_gradients_of_colours_are_exact():
    vertices, faces, colours = ball()
    pull = torch.randn(SIZE, SIZE, 3, generator=torch.Generator().manual_seed(0))
    painted = colours.clone().requires_grad_()
    (drawn(vertices, faces, painted)[..., :3] * pull).sum().backward()
    way = 0.01 * torch.randn(colours.shape, generator=torch.Generator().manual_seed(1))
    change = ((drawn(vertices, faces, colours + way) - drawn(vertices, faces, colours))[..., :3] * pull).sum()
    assert float((painted.grad * way).sum()) == pytest.approx(float(change), rel=1e-3)


def test_a_look_knows_depth_and_slant():
    vertices, faces, _ = ball()
    seen = look(vertices.numpy(), faces.numpy(), CAMERAS.viewmats[0], CAMERAS.Ks[0], SIZE)
    distance = float(CAMERAS.viewmats[0, 2, 3])
    assert seen.depth[SIZE, SIZE] == pytest.approx(distance - 0.7, abs=0.01)
    assert seen.slant[SIZE, SIZE] == pytest.approx(1, abs=0.01)
    assert np.isinf(seen.depth[0, 0])
    eye = -CAMERAS.viewmats[0, :3, :3].T.numpy() @ CAMERAS.viewmats[0, :3, 3].numpy()
    behind, slant = seen.at(np.stack([0 * eye, 0.5 * eye, 2 * eye, np.array([50.0, 0, 0])]))
    assert behind[0] == pytest.approx(0.7, abs=0.01)
    assert behind[1] < -0.5
    assert np.isinf(behind[2:]).all(), "behind the eye, and beside the picture"
    assert (slant[2:] == 0).all()
