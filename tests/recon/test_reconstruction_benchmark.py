import json
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from benchmarks.reconstruction import Options, chosen_assets, main
from factory.evaluation.truth import judge
from recon.config import FitConfig
from recon.perceptual import load_perceptual


@pytest.fixture
def assets(tmp_path: Path) -> Path:
    rows = [{"id": f"box-{k}", "path": "glb/box.glb", "caption": "a box", "split": "val"} for k in range(6)]
    rows.append({"id": "other", "path": "glb/none.glb", "caption": "", "split": "train"})
    (tmp_path / "glb").mkdir()
    box = trimesh.creation.box((1.0, 1.5, 1.0))
    box.visual.face_colors = np.tile(np.array([[200, 40, 40, 255], [40, 40, 200, 255]], np.uint8), (6, 1))
    box.export(tmp_path / "glb" / "box.glb")
    (tmp_path / "assets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_prints_a_row_an_asset_and_json_last(assets, capsys):
    sheet = assets / "sheet.png"
    fit = FitConfig(iterations=150, num_points=500)
    main(Options(assets=assets, limit=2, size=32, threads=1, sheet=sheet, fit=fit))
    lines = capsys.readouterr().out.strip().splitlines()
    summary = json.loads(lines[-1])
    assert [line.split()[0] for line in lines[1:-1]] == ["box-0", "box-3"]
    assert summary["assets"] == 2
    assert summary["psnr"] > 12
    assert 0.7 < summary["iou"] <= 1
    assert summary["lpips"] < 0.3
    assert summary["seconds_per_fit"] > 0
    assert Image.open(sheet).size == (8 * 32, 2 * 2 * 32)


def test_a_perfect_render_gets_perfect_figures():
    random = np.random.default_rng(0)
    truth = random.integers(0, 256, (2, 32, 32, 4), np.uint8)
    rgb, alpha = truth[..., :3].astype(np.float32) / 255, truth[..., 3].astype(np.float32) / 255
    perfect = judge(truth, rgb, alpha, load_perceptual("pocket"))
    assert perfect["psnr"] > 60
    assert perfect["iou"] == 1
    assert perfect["lpips"] == pytest.approx(0, abs=1e-6)
    off = judge(truth, (rgb + 0.1).astype(np.float32).clip(0, 1), 1 - alpha, load_perceptual("pocket"))
    assert 19 < off["psnr"] < 22
    assert off["iou"] < 0.02
    assert off["lpips"] > 0


def test_limit_spreads_over_the_split_and_bad_folders_are_named(assets, tmp_path):
    assert [row["id"] for row in chosen_assets(Options(assets=assets, limit=3))] == ["box-0", "box-2", "box-4"]
    with pytest.raises(ValueError, match=r"assets\.jsonl does not exist"):
        chosen_assets(Options(assets=tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="no rows with split 'test'"):
        chosen_assets(Options(assets=assets, split="test"))
