import json
import math
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from benchmarks.robustness import LEVELS, Options, degraded, main
from recon.config import FitConfig, PoseConfig


def frames() -> np.ndarray:
    """Sixteen views uint8 [16,48,48,4] of a square that is redder in each."""
    pixels = np.full((16, 48, 48, 4), 255, np.uint8)
    pixels[..., 3] = 0
    for view, frame in enumerate(pixels):
        frame[16:32, 16:32] = (10 * view, 90, 60, 255)
    return pixels


def centre(frame: np.ndarray) -> np.ndarray:
    """Where the mask of [S,S,4] lies, pixels."""
    mask = frame[..., 3].astype(float)
    rows, columns = np.indices(mask.shape)
    return np.array([(rows * mask).sum(), (columns * mask).sum()]) / mask.sum()


@pytest.mark.parametrize("flaw", LEVELS)
def test_flaws_keep_a_white_ground_and_do_what_they_say(flaw):
    clean, level = frames(), LEVELS[flaw][-1]
    found, error = degraded(clean, flaw, level, np.random.default_rng(0))
    assert found.shape == clean.shape
    assert found.dtype == np.uint8
    assert (found[:, 0, 0] == (255, 255, 255, 0)).all()
    assert error == (math.radians(10) if flaw == "elevation" else 0)
    shifts = np.abs([centre(a) - centre(b) for a, b in zip(found, clean, strict=True)])
    assert shifts.max() <= 0.03 * 48 + 0.01
    changed = (found != clean).any((1, 2, 3)).sum()
    assert changed == {"clean": 0, "elevation": 0, "bad frames": 3}.get(flaw, 16)
    assert (shifts.max() > 0.3) == (flaw == "jitter")
    if flaw == "colour":
        assert np.array_equal(found[..., 3], clean[..., 3])


def test_prints_a_table_and_json_last_and_goes_on_where_it_stopped(tmp_path: Path, capsys):
    (tmp_path / "glb").mkdir()
    trimesh.creation.box((1.0, 0.7, 0.8)).export(tmp_path / "glb" / "box.glb")
    rows = [{"id": f"box-{k}", "path": "glb/box.glb", "caption": "a box", "split": "train"} for k in range(2)]
    (tmp_path / "assets.jsonl").write_text("\n".join(map(json.dumps, rows)))
    fit = FitConfig(iterations=4, num_points=60, pose=PoseConfig(trial_iterations=2))
    every = ("full", "rgb", "robust", "elevation", "all poses")
    options = Options(
        assets=tmp_path,
        fits=every,
        flaws=("clean", "elevation"),
        strongest=True,
        size=16,
        progress=tmp_path / "p.jsonl",
        sheet=tmp_path / "s.png",
        fit=fit,
    )
    first = main(options)
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == first
    assert set(first["psnr"]) == {"clean", "elevation 10"}
    assert set(first["psnr"]["clean"]) == {"full", "rgb", "robust", "elevation", "all poses"}
    assert 0 <= first["p_lpips_over_rgb"]["clean"] <= 1
    assert first["assets"] == 2
    assert Image.open(tmp_path / "s.png").size == (7 * 16, 2 * 16)
    lines = (tmp_path / "p.jsonl").read_text().splitlines()
    assert len(lines) == 2 * 2 * 5
    (tmp_path / "p.jsonl").write_text("\n".join(lines[:-3]) + "\n")
    again = main(options)
    assert again["psnr"] == first["psnr"]
    assert len((tmp_path / "p.jsonl").read_text().splitlines()) == 20


def test_ways_to_fit_are_checked(tmp_path: Path):
    with pytest.raises(ValueError, match="give full and others of"):
        Options(assets=tmp_path, fits=("rgb",))
    with pytest.raises(ValueError, match="give clean and others of"):
        Options(assets=tmp_path, flaws=("clean", "rain"))
