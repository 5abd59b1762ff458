"""What is measured of finished assets, on Gaussians made by hand."""

import math

import numpy as np
import pytest
import torch

from recon.cameras import OrbitConfig, turntable
from recon.gaussians import Gaussians, render
from recon.quality import MEASURES, continuity, load_quality_model, measure, pixels, seen, structure

VIEWS, SIZE, ELEVATION = 16, 64, 0.3
ANGLES = [2 * math.pi * k / VIEWS for k in range(VIEWS)]


def ball(radius: float = 0.4, count: int = 2000, flat: float = 1.0, middle: tuple[float, float, float] = (0, 0, 0)):
    """Opaque Gaussians that fill a ball, or with `flat` < 1 a disc."""
    random = np.random.default_rng(0)
    places = random.standard_normal((count, 3))
    places *= radius * random.random((count, 1)) ** (1 / 3) / np.linalg.norm(places, axis=1, keepdims=True)
    places[:, 2] *= flat
    return Gaussians(
        means=torch.tensor(places + middle).float(),
        quats=torch.tensor([1.0, 0, 0, 0]).repeat(count, 1),
        scales=torch.full((count, 3), math.log(0.02)),
        opacities=torch.full((count,), 4.0),
        sh0=torch.tensor([1.0, -1.0, -1.0]).repeat(count, 1, 1),
        shN=torch.zeros(count, 0, 3),
    )


def joined(*some: Gaussians) -> Gaussians:
    names = ("means", "quats", "scales", "opacities", "sh0", "shN")
    return Gaussians(**{name: torch.cat([getattr(one, name) for one in some]) for name in names})


def frames_of(gaussians: Gaussians) -> np.ndarray:
    with torch.no_grad():
        rgb, alpha = render(gaussians, turntable(ELEVATION, SIZE, OrbitConfig(num_views=VIEWS)))
    return (torch.cat([rgb, alpha], -1).clamp(0, 1) * 255).round().byte().numpy()


def measured(gaussians: Gaussians, frames: np.ndarray | None = None) -> dict:
    shown = frames_of(gaussians) if frames is None else frames
    return measure(gaussians, shown, ELEVATION, OrbitConfig(num_views=VIEWS), ANGLES, 0.7)


def test_an_asset_that_is_its_frames_has_nothing_against_it() -> None:
    found = measured(ball())
    assert set(found) == set(MEASURES)
    assert all(value is not None and np.isfinite(value) and value >= 0 for value in found.values())
    assert max(found[name] for name in found if name.endswith("residual")) < 0.01
    assert (found["outside"], found["unlike"]) == (0.0, 0.7)
    assert found["floating"] < 0.01
    assert found["thin"] < 1.2
    assert found["between"] < 0.6


def test_the_frames_order_does_not_count() -> None:
    frames, order = frames_of(ball()), np.roll(np.arange(VIEWS)[::-1], 5)
    turned = measure(ball(), frames[order], ELEVATION, OrbitConfig(num_views=VIEWS), np.array(ANGLES)[order].tolist())
    there = measure(ball(), frames, ELEVATION, OrbitConfig(num_views=VIEWS), ANGLES)
    assert turned == pytest.approx(there)
    assert there["unlike"] is None


def test_a_part_beside_it_floats_and_lies_outside() -> None:
    frames = frames_of(ball(0.3))
    found = measured(joined(ball(0.3), ball(0.1, 200, middle=(0.7, 0, 0))), frames)
    assert found["floating"] == pytest.approx(200 / 2200, rel=0.05)
    assert found["outside"] == pytest.approx(200 / 2200, rel=0.05)
    assert found["shape_residual"] > 0.05


def test_a_disc_is_thin() -> None:
    assert structure(ball(flat=0.1))["thin"] == pytest.approx(10, rel=0.1)


def test_faint_and_smeared_gaussians() -> None:
    faint = ball()
    faint.opacities = torch.full_like(faint.opacities, math.log(0.3 / 0.7))
    assert structure(faint)["faint"] == pytest.approx(0.7, abs=1e-3)
    smeared = ball()
    smeared.scales[:40, 0] = math.log(0.5)
    assert structure(smeared)["smeared"] > 5 * structure(ball())["smeared"]


def test_what_lies_inside_is_seen_from_nowhere() -> None:
    shell, core = ball(0.5, 8000), ball(0.05, 800)
    shell.means = 0.5 * shell.means / shell.means.norm(dim=1, keepdim=True)
    both, cameras = joined(shell, core), turntable(ELEVATION, 32, OrbitConfig(num_views=VIEWS))
    hidden = seen(both, frames_of(both)[:, ::2, ::2], cameras)["hidden"]
    assert 800 / 8800 < hidden < 0.5


def test_pictures_that_jump_between_the_frames() -> None:
    at = frames_of(ball(middle=(0.2, 0, 0)))
    halves = ((at.astype(int) + np.roll(at, -1, 0)) // 2).astype(np.uint8)
    assert continuity(at, halves)["between"] < 0.01
    halves[3] = 255 - halves[3]
    found = continuity(at, halves)
    assert found["worst_between"] > 5
    assert found["worst_between"] == pytest.approx(VIEWS * found["between"], rel=0.05)


def test_pale_and_ragged_pixels() -> None:
    picture = np.zeros((1, 10, 10, 4), np.uint8)
    picture[0, :5, :, 3], picture[0, 5:7, :, 3] = 255, 100
    picture[0, :1, :, :3] = 250
    found = pixels(picture)
    assert found == {"ragged": pytest.approx(0.4), "pale": pytest.approx(0.2), "tiny": pytest.approx(2.0)}


def test_few_frames_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 4"):
        measure(ball(), frames_of(ball())[:3], ELEVATION, OrbitConfig(num_views=VIEWS), ANGLES[:3])


def test_the_shipped_model_knows_every_measure_and_tells_a_broken_asset() -> None:
    model = load_quality_model()
    assert model.names == list(MEASURES)
    good = measured(ball())
    broken = measured(ball(0.3), np.roll(frames_of(ball(0.4, middle=(0.3, 0, 0))), 5, 0))
    assert model.probability(good) < 0.5 < model.probability(broken)
    assert model.reasons(broken, MEASURES)
