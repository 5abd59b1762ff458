import numpy as np
import pytest

from benchmarks.yield_gate import calibrate
from recon.risk import RiskModel, calibration_error, roc_auc
from recon.yield_gate import FEATURES, load_yield_model, measure, motion, residuals

VIEWS, SIZE = 16, 24


def orbiting_dot() -> np.ndarray:
    """RGBA uint8 [16,24,24,4]: a disc with a dark spot that circles on it evenly."""
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    frames = np.full((VIEWS, SIZE, SIZE, 4), 255, np.uint8)
    frames[..., 3] = 0
    for frame, angle in zip(frames, np.arange(VIEWS) * 2 * np.pi / VIEWS, strict=True):
        frame[x**2 + y**2 < 81] = (200, 120, 40, 255)
        spot = (x - 5 * np.cos(angle)) ** 2 + (y - 5 * np.sin(angle)) ** 2 < 10
        frame[spot, :3] = (20, 20, 90)
    return frames


def test_frozen_jumping_and_flickering_frames_show_in_the_motion():
    sound = orbiting_dot()
    clean = motion(sound)
    frozen = sound.copy()
    frozen[4:7] = frozen[3]
    assert motion(frozen)["slowest_step"] > 0.9 > 0.6 > clean["slowest_step"]
    assert motion(frozen)["fastest_step"] > 1.3 * clean["fastest_step"]
    flicker = sound.copy()
    flicker[::2, ..., :3] = flicker[::2, ..., :3] // 2 + 127
    assert motion(flicker)["colour_flicker"] > 10 * clean["colour_flicker"]
    smaller = sound.copy()
    smaller[::2, :8] = (255, 255, 255, 0)
    assert motion(smaller)["area_flicker"] > 10 * clean["area_flicker"] + 0.01


def test_one_wrong_render_is_the_worst_residual():
    frames = orbiting_dot()
    renders = frames.astype(np.float32) / 255
    assert max(residuals(frames, renders).values()) < 1e-3
    renders[5, 4:20, 4:20] = (0, 1, 0, 0)
    found = residuals(frames, renders)
    for name in ("colour", "perceptual", "shape"):
        assert found[f"worst_{name}_residual"] == pytest.approx(VIEWS * found[f"{name}_residual"], rel=0.01), name


def test_a_turntable_is_measured_by_a_short_fit():
    frames = orbiting_dot()
    found = measure(frames, frames[..., 3], 0.3)
    assert set(found) == set(FEATURES)
    assert all(np.isfinite(value) and value >= 0 for value in found.values())
    with pytest.raises(ValueError, match="at least 4"):
        measure(frames[:3], frames[:3, ..., 3], 0.3)


def rows(count: int) -> list[dict]:
    random = np.random.default_rng(1)
    found = []
    for k in range(count):
        failed = bool(k % 2)
        features = {name: float(random.uniform(0.1, 0.2)) for name in FEATURES}
        features["colour_flicker"] *= 3 if failed else 1
        found.append({"features": features, "failed": failed})
    return found


def test_calibration_finds_what_tells_failures_and_names_it(tmp_path):
    model = calibrate(rows(80))
    model.save(tmp_path)
    model = load_yield_model(tmp_path)
    held_back = rows(60)
    scores = np.array([model.probability(row["features"]) for row in held_back])
    failed = np.array([row["failed"] for row in held_back])
    assert roc_auc(scores, failed) > 0.97
    assert calibration_error(scores, failed) < 0.2
    assert model.reasons(held_back[1]["features"], FEATURES)[0] == "the colours flicker"
    assert "the colours flicker" not in model.reasons(held_back[0]["features"], FEATURES)


def test_roc_auc_is_the_share_of_ordered_pairs():
    failed = np.array([True, True, False, False])
    assert roc_auc(np.array([0.9, 0.4, 0.4, 0.1]), failed) == pytest.approx(0.875)


def test_shipped_model_knows_every_feature():
    model = load_yield_model()
    assert model.names == list(FEATURES)
    assert np.isfinite([*model.means, *model.stds, *model.weights, model.bias]).all()


def test_a_missing_model_says_who_writes_it(tmp_path):
    with pytest.raises(ValueError, match=r"benchmarks\.yield_gate"):
        load_yield_model(tmp_path)
    assert RiskModel(["a"], [0.0], [1.0], [0.0], 0.0).probability({"a": 1.0}) == 0.5
