"""The view plan of a row: written by the video stage, read by every stage after it."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch

from factory.config.settings import FactoryConfig, FilesConfig, ViewsConfig
from factory.ledger.schemas import empty_row, pack
from factory.stages.asset_files import asset_files
from factory.stages.asset_ply import ply_bytes
from factory.stages.asset_table import MadeWith, asset_row
from factory.stages.columns import VIEW_PLAN, pixels_of_frames
from factory.stages.find_views import FindViews
from factory.stages.image_to_video import ImageToVideo
from factory.stages.reconstruct import Reconstruct
from factory.stages.renders import render_views
from factory.stages.view_plans import as_column, orbit_of, plan_of
from model.config import ImageConfig, VideoConfig
from model.views import ViewPlan, latent_views, uniform_views
from recon import uneven_turn
from recon.cameras import around
from recon.config import DensifyConfig, FitConfig, LossConfig, OrbitConfig, RefineConfig
from recon.gaussians import init_ball, render
from recon.ply import parse_ply
from recon.user_error import UserError

SV3D = uniform_views(21, fov_degrees=33.8, distance=3.831, size=48, elevation=0.2)


@pytest.mark.parametrize("plan", [SV3D, latent_views(85, background="black", clockwise=True), uniform_views(16)])
def test_a_plan_comes_back_from_an_arrow_table_as_it_was(plan: ViewPlan) -> None:
    table = pa.table({"view_plan": pa.array([as_column(plan)], VIEW_PLAN.type)})
    assert plan_of(table.to_pylist()[0], len(plan), OrbitConfig()) == plan


def test_a_row_without_a_plan_is_one_even_turn_seen_as_the_settings_say() -> None:
    orbit = OrbitConfig(fov_degrees=50, distance=2.5)
    assert plan_of({}, 8, orbit) == uniform_views(8, fov_degrees=50, distance=2.5)
    assert orbit_of({"view_plan": None}, orbit) is orbit


def test_frames_that_are_not_the_plans_are_refused_in_one_sentence() -> None:
    row = {"view_plan": as_column(SV3D), "frames": pack(np.zeros((16, 48, 48, 4), np.uint8))}
    stage = FindViews(SimpleNamespace(views=ViewsConfig(elevation=0.1), orbit=OrbitConfig()))
    with pytest.raises(ValueError, match="the video has 16 frames and the model's view plan 21 views"):
        stage.process([row])


def test_the_video_stage_writes_the_models_plan() -> None:
    stage = object.__new__(ImageToVideo)
    frames = np.zeros((1, 21, 48, 48, 3), np.uint8)
    stage.model = SimpleNamespace(views=SV3D, generate=lambda *_: frames, revision="r", license="l", num_evaluations={})
    rows = [{"image": pack(np.zeros((32, 32, 3), np.uint8)), "prompt": "a cup", "seed": 1}]
    stage.process(rows)
    assert plan_of(rows[0], 21, OrbitConfig()) == SV3D


def test_an_elevation_that_the_model_was_given_is_not_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = np.full((21, 48, 48, 4), 255, np.uint8)
    stage = FindViews(SimpleNamespace(views=ViewsConfig(), orbit=OrbitConfig()))
    monkeypatch.setattr(stage.finder, "estimator", None)
    row = {"frames": pack(frames), "view_plan": as_column(SV3D)}
    stage.process([row])
    assert row["elevation"] == 0.2


def test_a_guess_is_replaced_by_what_the_frames_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clockwise turn of 300 degrees, slow at its start; the fit's frames stay at the ends of latents."""
    guess = latent_views(33, exact=False)
    shown = tuple((-math.radians(300) * (np.linspace(0, 1, 33) ** 1.5)).tolist())
    found = SimpleNamespace(azimuths=shown)
    monkeypatch.setattr(uneven_turn, "estimate_turn", lambda frames, masks, orbit: found)
    stage = FindViews(SimpleNamespace(views=ViewsConfig(elevation=0.3), orbit=OrbitConfig()))
    row = {"frames": pack(np.full((33, 48, 48, 4), 255, np.uint8)), "view_plan": as_column(guess)}
    stage.process([row])
    plan = plan_of(row, 33, OrbitConfig())
    assert (plan.azimuths, plan.exact) == (shown, False)
    assert plan.chosen[0] == 0
    assert all(frame % 4 == 0 for frame in plan.chosen)
    gaps = np.degrees(-np.diff([plan.azimuths[frame] for frame in plan.chosen]))
    assert gaps.min() > 15
    assert gaps.max() < 75


def test_a_video_that_is_no_turn_does_not_reach_the_fit() -> None:
    row = {
        "frames": pack(np.full((33, 48, 48, 4), 255, np.uint8)),
        "view_plan": as_column(latent_views(33, exact=False)),
    }
    stage = FindViews(SimpleNamespace(views=ViewsConfig(elevation=0.3), orbit=OrbitConfig()))
    with pytest.raises(UserError, match="the video is no turn"):
        stage.process([row])


def turn_of(plan: ViewPlan, elevation: float, gaussians) -> np.ndarray:
    orbit = OrbitConfig(fov_degrees=plan.fov_degrees, distance=plan.distance)
    with torch.no_grad():
        rgb, alpha = render(gaussians, around(plan.azimuths, elevation, 32, orbit))
    return (torch.cat([rgb, alpha], -1).clamp(0, 1) * 255).round().byte().numpy()


class Native:
    """A refiner that answers what it gets, and remembers it."""

    def __init__(self) -> None:
        self.calls, self.num_evaluations = [], {"steps": 1, "forwards": 1}

    def refine(self, frames, images, prompts, seeds):
        self.calls.append(frames[0])
        return frames


def test_a_fit_takes_the_chosen_frames_and_a_refiner_all_of_them() -> None:
    """A clockwise turn of 25 frames of which a fit uses every fourth, seen by a narrow lens."""
    plan = latent_views(25, clockwise=True, fov_degrees=33.8, distance=3.831)
    truth = init_ball(300, radius=0.4, opacity=0.9, generator=torch.Generator().manual_seed(0))
    truth.means = truth.means + torch.tensor([0.4, 0.0, 0.0])  # beside the middle, so that directions differ
    frames = turn_of(plan, 0.2, truth)
    fit = FitConfig(iterations=60, num_points=300, init="hull", loss=LossConfig(lpips=0, rgb=10),
                    densify=DensifyConfig(max_gaussians=400), device="cpu")  # fmt: skip
    stage = object.__new__(Reconstruct)
    stage.config = FactoryConfig(fit=fit, refine=RefineConfig(rounds_at=(40,)))
    stage.masker = None
    stage.model = native = Native()
    row = {"frames": pack(frames), "masks": pack(frames[..., 3]), "elevation": 0.2, "image": pack(frames[0])}
    row |= {"prompt": "a ball", "seed": 3, "view_plan": as_column(plan)}
    stage.process([row])
    assert native.calls[0].shape == frames.shape
    found = parse_ply(row["gaussians"], "asset.ply")
    inside, other_way = frames[..., 3] > 200, latent_views(25, fov_degrees=33.8, distance=3.831)
    error, mirrored = (
        np.abs(turn_of(cameras, 0.2, found).astype(int) - frames)[inside].mean() for cameras in (plan, other_way)
    )
    assert error < 16
    assert mirrored > 2 * error
    between = [k for k in range(25) if k not in plan.chosen]
    assert np.abs(native.calls[0].astype(int) - frames)[between][inside[between]].mean() < 40


def test_what_is_written_and_scored_is_seen_by_the_plans_cameras() -> None:
    gaussians = init_ball(200, opacity=0.9, generator=torch.Generator().manual_seed(0))
    config = FactoryConfig(files=FilesConfig(turntable_frames=32))
    row = empty_row(
        prompt_id="p", prompt="a ball", seed=1, elevation=0.2, gaussians=ply_bytes(gaussians),
        image=pack(np.zeros((64, 64, 4), np.uint8)), frames=pack(np.zeros((21, 48, 48, 4), np.uint8)),
        view_plan=as_column(SV3D),
    )  # fmt: skip
    files = asset_files(row, config)
    cameras = json.loads(files["transforms.json"])
    assert 2 * math.degrees(math.atan(cameras["w"] / 2 / cameras["fl_x"])) == pytest.approx(33.8)
    place = np.array(cameras["frames"][0]["transform_matrix"])[:3, 3]
    assert np.linalg.norm(place) == pytest.approx(3.831, rel=1e-5)
    views = render_views(row, config)
    assert views.shape == (16, 48, 48, 4)
    expected = turn_of(ViewPlan(azimuths=(0.0,), fov_degrees=33.8, distance=3.831), 0.2, gaussians)
    assert views[0, ..., 3].sum() / 48**2 == pytest.approx(expected[0, ..., 3].sum() / 32**2, rel=0.05)
    made, schema = asset_row(row, files, "f", config, MadeWith(columns=(VIEW_PLAN,)))
    assert (made["fov_degrees"], made["distance"], made["num_views"]) == (33.8, 3.831, 16)
    written = pa.Table.from_pylist([made], schema=schema).to_pylist()[0]
    assert plan_of(written, 21, OrbitConfig()) == SV3D


def test_sizes_follow_the_plan(tmp_path) -> None:
    config = FactoryConfig(image=ImageConfig(size=128))
    assert pixels_of_frames(config) == 16 * 128**2
    (tmp_path / "model_index.json").write_text('{"_class_name": "WanImageToVideoPipeline"}')
    wan = FactoryConfig(image=ImageConfig(size=512), video=VideoConfig(model=str(tmp_path), frames=49, size=480))
    assert pixels_of_frames(wan) == 49 * 480**2
    for address, frames in (("/only/on/the/nodes", 121), ("/mnt/sv3d-u", 21), ("/mnt/i2vgen-xl-turntable", 16)):
        elsewhere = FactoryConfig(image=ImageConfig(size=512), video=VideoConfig(model=address))
        assert pixels_of_frames(elsewhere) == frames * 512**2
