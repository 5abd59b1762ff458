"""What the presets promise: no embedded network where the paper's are meant, and cameras that are the model's."""

import math

import pytest

from factory.config.settings import preset
from factory.stages.chain import stages_of
from factory.stages.networks import check_views
from factory.weights.folder import assigned
from model.video_models import SV3D_CIRCLE, SV3D_FOV, SV3D_SIZE, SV3D_VIEWS
from model.views import distance_of, uniform_views


@pytest.mark.parametrize("name", ["paper", "sv3d"])
def test_no_network_of_the_large_presets_is_embedded(name) -> None:
    config = preset(name)
    found = {network.name: network.address for stage in stages_of(config.chain) for network in stage.networks(config)}
    assert set(found) == {"image", "masks", "video", "estimator", "perceptual", "judge", "judge 2"}
    assert "pocket" not in found.values()
    embedded = {network.address for stage in stages_of("image,video,views,reconstruct,score,commit")
                for network in stage.networks(preset("pocket"))}  # fmt: skip
    assert embedded == {"pocket"}


def test_every_public_network_of_a_large_preset_can_be_pulled() -> None:
    assert assigned(preset("sv3d")) == {
        "image.model": "sdxl",
        "video.model": "sv3d-u",
        "views.masks": "isnet",
        "fit.loss.perceptual_weights": "lpips",
        "clip.model": "ViT-L-14-quickgelu-openai",
        "clip.beside.0": "ViT-B-32-quickgelu-openai",
    }


def test_prompts_of_the_paper_preset_ask_for_one_object_on_white() -> None:
    template = preset("paper").image.template
    for words in ("{prompt}", "single object", "white background", "whole and centered"):
        assert words in template


def test_the_growth_of_18_rounds_stays_under_the_cap() -> None:
    fit = preset("paper").fit
    rounds = int(fit.densify.until * fit.iterations / fit.densify.every)
    grown = fit.num_points * (1 + fit.densify.grow_share) ** (rounds - 1)
    assert 0.8 * fit.densify.max_gaussians < grown < fit.densify.max_gaussians


def test_sv3d_is_seen_as_it_was_trained() -> None:
    config = preset("sv3d")
    assert config.image.size == SV3D_SIZE
    plan = uniform_views(SV3D_VIEWS, fov_degrees=SV3D_FOV, distance=distance_of(SV3D_FOV, SV3D_CIRCLE))
    check_views(config, plan)
    assert config.orbit.distance == pytest.approx(plan.distance, rel=1e-3)
    assert math.degrees(2 * math.asin(1 / plan.distance)) < config.orbit.fov_degrees
