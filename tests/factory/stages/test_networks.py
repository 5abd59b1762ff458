"""What settings ask for is named, and what does not fit together is refused before anything is loaded."""

import pytest

from factory.config.settings import preset
from factory.stages.networks import check_views, turntable
from factory.storage.user_error import UserError
from model.views import latent_views, uniform_views
from recon.config import OrbitConfig


def test_the_embedded_model_fits_the_default_orbit() -> None:
    config = preset("pocket")
    assert turntable(config.video, config.orbit).locate() is not None


def test_an_image_size_that_the_video_model_does_not_take_is_refused_at_the_start() -> None:
    config = preset("pocket")
    assert turntable(config.video, config.orbit, 128).locate() is not None
    with pytest.raises(
        UserError, match=r"image.size is 64, but the video model 'pocket' takes .* give --image.size 128"
    ):
        turntable(config.video, config.orbit, 64).locate()


def test_another_camera_names_the_flags() -> None:
    plan = uniform_views(21, fov_degrees=33.8, distance=3.8317, size=576)
    with pytest.raises(UserError, match=r"give --orbit\.fov-degrees 33\.8 --orbit\.distance 3\.8317"):
        check_views("sv3d", plan, OrbitConfig())
    check_views("sv3d", plan, OrbitConfig(fov_degrees=33.8, distance=3.8317))


@pytest.mark.parametrize(
    "plan",
    [
        latent_views(81, exact=False),
        latent_views(85),
        uniform_views(16, background="black"),
        uniform_views(16, exact=False),
    ],
    ids=["a guess", "a choice of frames", "on black", "uncertain"],
)
def test_turns_that_the_line_cannot_fit_are_refused(plan) -> None:
    with pytest.raises(UserError, match="no even counter-clockwise turn on white"):
        check_views("wan", plan, OrbitConfig())
