import pytest
import torch

from recon.cameras import turntable
from recon.gaussians import Gaussians, init_ball, render


def test_init_ball_fills_a_ball_uniformly():
    ball = init_ball(8000, radius=0.7, opacity=0.2, generator=torch.Generator().manual_seed(0))
    distances = ball.means.norm(dim=1)
    assert distances.max() <= 0.7
    assert (distances < 0.35).float().mean() == pytest.approx(1 / 8, abs=0.015)
    assert ball.means.mean(0).abs().max() < 0.02
    assert torch.allclose(ball.alphas, torch.full((8000,), 0.2))
    assert torch.allclose(ball.standard_deviations, torch.full((8000, 3), 0.7 / 20), rtol=1e-5)


def test_equal_generators_give_equal_balls():
    first, second = (init_ball(50, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first.means, second.means)
    assert not torch.equal(first.means, init_ball(50, generator=torch.Generator().manual_seed(4)).means)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_degree_and_number_of_coefficients(degree):
    ball = init_ball(5, sh_degree=degree)
    assert ball.sh_degree == degree
    assert ball.sh.shape == (5, (degree + 1) ** 2, 3)


def test_render_is_a_grey_disc_on_the_background():
    ball = init_ball(3000, radius=0.5, opacity=0.5, generator=torch.Generator().manual_seed(0))
    rgb, alpha = render(ball, turntable(0.3, 48), background=0.25)
    assert rgb.shape == (16, 48, 48, 3)
    assert alpha.shape == (16, 48, 48, 1)
    assert torch.allclose(rgb[:, 24, 24], torch.full((16, 3), 0.5), atol=2e-3)
    assert torch.equal(rgb[:, 0, 0], torch.full((16, 3), 0.25))
    assert alpha[:, 24, 24].min() > 0.99
    assert alpha[:, 0, 0].max() == 0


def test_directional_colour_turns_with_the_camera():
    """A first-degree lobe towards +z is bright from the front and dark from behind."""
    ball = init_ball(2000, opacity=0.9, sh_degree=1, generator=torch.Generator().manual_seed(0))
    ball.shN[:, 1] = -0.8
    rgb, _ = render(ball, turntable(0.0, 32), background=0.0)
    assert rgb[0, 16, 16].min() > 0.8
    assert rgb[8, 16, 16].max() < 0.2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_points": 0}, "num_points is 0"),
        ({"num_points": 5, "radius": 0.0}, "radius is 0"),
        ({"num_points": 5, "opacity": 1.0}, "opacity is 1"),
        ({"num_points": 5, "sh_degree": 4}, "24 coefficients"),
    ],
)
def test_bad_starts_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        init_ball(**arguments)


def test_shapes_that_do_not_belong_together_are_refused():
    ball = init_ball(5)
    with pytest.raises(ValueError, match=r"scales has shape \(4, 3\); 5 Gaussians need \(5, 3\)"):
        Gaussians(ball.means, ball.quats, ball.scales[:4], ball.opacities, ball.sh0, ball.shN)
