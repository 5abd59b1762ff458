"""View plans: angles and choices against closed forms, and what each family says before any weights are read."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.config import VideoConfig
from model.video import load_video_model
from model.video_models import FAMILIES, SETTINGS, view_plan
from model.views import ViewPlan, declared_views, distance_of, latent_views, uniform_views
from recon.cameras import OrbitConfig, azimuths, turntable


def indexed(folder: Path, name: str, **files: dict[str, Any]) -> Path:
    """A folder with json files alone: what a plan is read from."""
    for file, content in {"model_index": {"_class_name": name}, **files}.items():
        path = folder / f"{file.replace('__', '/')}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    return folder


def test_even_views_are_the_cameras_that_a_fit_takes_by_default() -> None:
    plan, orbit = uniform_views(16), OrbitConfig()
    assert np.allclose(plan.azimuths, azimuths(orbit).numpy(), atol=1e-6)
    assert (plan.fov_degrees, plan.distance) == (orbit.fov_degrees, orbit.distance)
    assert plan.chosen == tuple(range(16))


@pytest.mark.parametrize(("frames", "views", "step"), [(81, 20, 4), (85, 21, 4), (121, 15, 8), (49, 12, 4), (5, 1, 4)])
def test_a_fit_takes_even_views_at_the_ends_of_latents(frames: int, views: int, step: int) -> None:
    plan = latent_views(frames)
    assert plan.chosen == tuple(range(0, frames - 1, step))
    assert len(plan.chosen) == views
    gaps = np.diff([*(plan.azimuths[k] for k in plan.chosen), 2 * math.pi])
    assert np.allclose(gaps, 2 * math.pi / views)
    assert plan.azimuths[-1] == pytest.approx(2 * math.pi)


def test_direction_and_closure() -> None:
    assert latent_views(81, clockwise=True).azimuths[20] == pytest.approx(-math.pi / 2)
    assert latent_views(85, closes=False).azimuths[-1] == pytest.approx(2 * math.pi * 84 / 85)


@pytest.mark.parametrize(("circle", "distance"), [(0.89, 3.83), (0.8, 4.23), (0.7, 4.81)])
def test_distance_puts_the_unit_sphere_on_its_circle(circle: float, distance: float) -> None:
    found = distance_of(33.8, circle)
    assert found == pytest.approx(distance, abs=0.01)
    # a ray through the circle's edge touches the sphere: its distance from the origin is 1
    slope = circle * math.tan(math.radians(33.8 / 2))
    assert found * slope / math.hypot(1, slope) == pytest.approx(1)


def test_growing_azimuth_turns_the_camera_to_the_objects_left_side() -> None:
    """The sign of every plan: a mark at +x, right of an object that faces +z, is nearest at 90 degrees."""
    plan = uniform_views(4)
    cameras = turntable(0.0, 64, OrbitConfig(num_views=4))
    mark = torch.tensor([1.0, 0, 0, 1])
    depths = (cameras.viewmats @ mark)[:, 2]
    assert int(depths.argmin()) == plan.azimuths.index(math.pi / 2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"azimuths": ()}, "the first of them 0"),
        ({"azimuths": (0.1, 0.2)}, "the first of them 0"),
        ({"azimuths": (0.0, math.nan)}, "finite"),
        ({"elevation": 1.6}, "elevation is 1.6"),
        ({"fov_degrees": 120.0}, r"fov_degrees is 120.0; it must lie in \(0, 120\)"),
        ({"distance": 1.0}, "it must exceed 1"),
        ({"size": 4}, r"size is 4; it must lie in \[8, 4096\]"),
        ({"fit": (0, 2, 1)}, "rising frame numbers"),
        ({"fit": (1, 2)}, "rising frame numbers from 0"),
        ({"fit": (0, 4)}, "below 4"),
    ],
)
def test_bad_plans_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ViewPlan(**{"azimuths": (0.0, 1.0, 2.0, 3.0)} | fields)


def test_other_numbers_of_frames_are_refused() -> None:
    uniform_views(16).check(16)
    with pytest.raises(ValueError, match="the video has 14 frames and the model's view plan 16 views"):
        uniform_views(16).check(14)


def test_a_folder_tells_where_it_differs_from_its_family() -> None:
    plan = declared_views(uniform_views(16), {"views": 21, "fov_degrees": 33.8, "fit": [0, 3, 6]})
    assert plan == uniform_views(21, fov_degrees=33.8, fit=(0, 3, 6))
    assert declared_views(plan, {}) == plan
    with pytest.raises(ValueError, match=r"views\.json has fov; its fields are azimuths, background"):
        declared_views(plan, {"fov": 30})


def test_every_family_tells_its_views_without_weights(tmp_path: Path) -> None:
    def plan(name: str, settings: dict[str, Any] | None = None, **files: Any) -> ViewPlan:
        folder = indexed(tmp_path / f"{len(list(tmp_path.iterdir()))}", name, **files)
        return view_plan(VideoConfig(model=str(folder), **settings or {}))

    assert view_plan(VideoConfig()) == uniform_views(16)
    assert len(plan("I2VGenXLPipeline", {"frames": 20})) == 20
    assert plan("StableVideoDiffusionPipeline", views={"views": 21}) == uniform_views(21)
    u = {"unet__config": {"projection_class_embeddings_input_dim": 256}}
    p = {"unet__config": {"projection_class_embeddings_input_dim": 1280}}
    sv3d = plan("StableVideo3DDiffusionPipeline", **u)
    assert (len(sv3d), sv3d.size, sv3d.fov_degrees, sv3d.elevation, sv3d.exact) == (21, 576, 33.8, None, True)
    assert sv3d.distance == pytest.approx(3.83, abs=0.01)
    assert sv3d.azimuths[7] == pytest.approx(2 * math.pi / 3)
    posed = plan("StableVideo3DDiffusionPipeline", {"elevation": 10.0}, **p)
    assert posed.elevation == pytest.approx(math.radians(10))
    wan = plan("WanImageToVideoPipeline")
    assert (len(wan), wan.exact, wan.fit) == (81, False, tuple(range(0, 80, 4)))
    assert len(plan("WanImageToVideoPipeline", model_index={"_class_name": "WanImageToVideoPipeline",
                                                            "expand_timesteps": True})) == 121  # fmt: skip
    droplet = plan("Droplet3D_Pipeline_Inpaint", {"direction": "cw"})
    assert (len(droplet), droplet.exact, droplet.background, droplet.size) == (85, True, "black", 512)
    assert droplet.azimuths[21] == pytest.approx(-math.pi / 2)
    assert not plan("Droplet3D_Pipeline_Inpaint").exact


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("StableVideo3DDiffusionPipeline", {"elevation": None}, r"video\.elevation is not set and SV3D_p takes"),
        ("WanImageToVideoPipeline", {"frames": 80}, r"video\.frames is 80; .*give 4k \+ 1, as 81"),
        ("StableVideoDiffusionPipeline", {"lora": "x"}, r"video\.lora is 'x' .* of family svd, .*take a model of wan"),
        ("I2VGenXLPipeline", {"flow_shift": 3.0}, r"video\.flow_shift is 3\.0 .*leave it at None"),
        ("StableDiffusionXLPipeline", {}, "is a StableDiffusionXLPipeline; a turntable model is one of Pocket"),
    ],
)
def test_settings_that_a_family_would_ignore_are_refused(
    name: str, settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = indexed(tmp_path, name, unet__config={"projection_class_embeddings_input_dim": 1280})
    with pytest.raises(ValueError, match=message):
        view_plan(VideoConfig(model=str(folder), **settings))


def test_the_embedded_models_answer_their_plan() -> None:
    assert load_video_model("pocket").views == uniform_views(16)
    with pytest.raises(ValueError, match=r"video\.offload is 'parts' and pocket is of family pocket"):
        load_video_model(VideoConfig(offload="parts"))


def test_families_name_real_settings_and_adapters() -> None:
    import importlib

    for family in FAMILIES.values():
        module, name = family.adapter.split(":")
        assert hasattr(importlib.import_module(module), name)
        assert family.uses <= set(SETTINGS)


def test_a_plan_needs_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys, model.video_models as f; f.view_plan(f.VideoConfig()); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"elevation": 90.0}, r"video\.elevation is 90\.0; it must lie in \(-90, 90\)"),
        ({"flow_shift": 0.0}, r"video\.flow_shift is 0\.0; it must lie in \(0, 100\]"),
        ({"frames": 3}, r"video\.frames is 3; it must lie in \[4, 1000\]"),
        ({"decode_chunk": 0}, r"video\.decode_chunk is 0"),
        ({"template": "a cup"}, "must contain {prompt}"),
        ({"guidance_scale": 51.0}, r"video\.guidance_scale is 51\.0"),
    ],
)
def test_bad_settings_name_the_limit(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VideoConfig(**settings)
