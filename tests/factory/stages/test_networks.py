"""What settings ask for is named, and what does not fit together is refused before anything is loaded."""

from dataclasses import replace

import pytest

from factory.config.settings import ViewsConfig, preset
from factory.stages.networks import check_views, turntable
from model.views import latent_views, uniform_views
from recon.config import OrbitConfig
from recon.user_error import UserError

SV3D = uniform_views(21, fov_degrees=33.8, distance=3.8317, size=576)


def test_the_embedded_model_fits_the_default_orbit() -> None:
    assert turntable(preset("pocket")).locate() is not None


def test_an_image_size_that_the_video_model_does_not_take_is_refused_at_the_start() -> None:
    config = preset("pocket")
    with pytest.raises(
        UserError, match=r"image.size is 64, but the video model 'pocket' takes .* give --image.size 128"
    ):
        turntable(replace(config, image=replace(config.image, size=64))).locate()


@pytest.mark.parametrize(
    "plan",
    [SV3D, latent_views(81, exact=False), latent_views(85, clockwise=True), uniform_views(16, exact=False)],
    ids=["other cameras", "a guess", "a choice of frames", "uncertain"],
)
def test_what_the_plan_says_is_what_the_line_takes(plan) -> None:
    check_views(preset("pocket"), plan)


def test_an_orbit_that_contradicts_the_model_is_refused() -> None:
    config = preset("pocket")
    with pytest.raises(UserError, match=r"orbit\.fov_degrees is 50, and pocket sees objects with 33\.8"):
        check_views(replace(config, orbit=OrbitConfig(fov_degrees=50)), SV3D)
    check_views(replace(config, orbit=OrbitConfig(fov_degrees=33.8, distance=3.831)), SV3D)


def test_the_embedded_masker_knows_white_alone() -> None:
    config, plan = preset("pocket"), latent_views(85, background="black")
    with pytest.raises(UserError, match=r"shows objects on black.*set --views\.masks u2netp"):
        check_views(config, plan)
    check_views(replace(config, views=ViewsConfig(masks="u2netp")), plan)


def test_two_elevations_are_refused() -> None:
    config = replace(preset("pocket"), views=ViewsConfig(elevation=0.3))
    with pytest.raises(UserError, match=r"leave views\.elevation unset"):
        check_views(config, replace(SV3D, elevation=0.1))
