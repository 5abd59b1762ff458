"""What settings ask for is named, and what does not fit together is refused before anything is loaded."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from factory.config.settings import ViewsConfig, preset, run_settings
from factory.ledger import run_identity
from factory.stages.networks import check_views, generator, loras, turntable
from factory.stages.survey import revisions_of
from factory.storage.local import LocalStore
from model.config import VideoConfig
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
    ("index", "parts", "multiple"),
    [
        ("I2VGenXLPipeline", {"vae": {"block_out_channels": [1] * 4}, "unet": {"block_out_channels": [1] * 4}}, 8),
        ("StableVideoDiffusionPipeline", {"vae": {"block_out_channels": [1] * 4}, "unet": {}}, 8),
        ("WanImageToVideoPipeline", {"vae": {}, "transformer": {"patch_size": [1, 2, 2]}}, 16),
        ("WanImageToVideoPipeline", {"vae": {"scale_factor_spatial": 16}, "transformer": {}}, 32),
    ],
    ids=["i2vgen-xl", "svd", "wan", "wan ti2v"],
)
def test_a_side_without_latents_is_refused_at_the_start(
    tmp_path: Path, index: str, parts: dict[str, Any], multiple: int
) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": index}))
    for name, values in parts.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(values))
    config, wrong = preset("paper"), 512 + multiple // 2
    config.video = VideoConfig(model=str(tmp_path))
    turntable(config).locate()
    config.image = replace(config.image, size=wrong)
    with pytest.raises(UserError, match=rf"image.size is {wrong} and .* a multiple of {multiple} pixels a side: take "):
        turntable(config).locate()
    config.video = replace(config.video, size=512)  # the picture is resized
    turntable(config).locate()
    with pytest.raises(UserError, match=rf"video.size is {wrong} and "):
        turntable(replace(config, video=replace(config.video, size=wrong))).locate()


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


def test_a_changed_lora_or_changed_views_refuse_a_resume(tmp_path) -> None:
    config = preset("pocket")
    folder, lora = tmp_path / "model", tmp_path / "turn.safetensors"
    folder.mkdir()
    save_file({"weight": torch.zeros(1)}, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    (folder / "views.json").write_text('{"views": 16}')
    save_file({"a.lora_A.weight": torch.zeros(2, 2)}, lora)
    video = replace(config.video, model=str(folder), lora=str(lora))
    networks = [generator("video", video), *loras(video)]
    before = revisions_of(networks)
    assert set(before) == {"video", "video views", "LoRA"}
    store = LocalStore(str(tmp_path / "out"))
    run_identity.write(store, run_settings(config), before)
    save_file({"a.lora_A.weight": torch.ones(2, 2)}, lora)
    with pytest.raises(ValueError, match=r"LoRA weights: sha256:.* -> sha256:.*--new-run"):
        run_identity.check_unchanged(store, run_settings(config), revisions_of(networks), 3)
    run_identity.write(store, run_settings(config), revisions_of(networks))
    (folder / "views.json").write_text('{"views": 8}')
    with pytest.raises(ValueError, match="video views weights: sha256"):
        run_identity.check_unchanged(store, run_settings(config), revisions_of(networks), 3)


def test_each_of_two_loras_is_named_and_what_is_none_refused(tmp_path) -> None:
    config = preset("pocket").video
    both = loras(replace(config, lora="a.safetensors, b.safetensors"))
    assert [(network.name, network.address) for network in both] == [
        ("LoRA 1", "a.safetensors"),
        ("LoRA 2", "b.safetensors"),
    ]
    (tmp_path / "turn.ckpt").write_bytes(b"pickle")
    with pytest.raises(ValueError, match=r"turn\.ckpt is no safetensors file; pickled weights are not read"):
        loras(replace(config, lora=str(tmp_path / "turn.ckpt")))[0].locate()
