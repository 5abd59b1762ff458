"""`im3d evaluate` with published protocols, further judges and a reference set, on a folder of models."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
import torch
from PIL import Image
from safetensors.torch import save_file

from jobs import evaluate
from recon.gaussians import init_ball
from recon.ply import write_ply
from recon.torchvision_shim import import_torchvision
from recon.video_io import encode_mp4

pytestmark = pytest.mark.timeout(600)
COUNT = 11
LONG = "a very long prompt " * 40


@pytest.fixture(scope="module", autouse=True)
def _cluster():
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gaussians and videos by prompt ids of GPTEval3D; the last asset has no model."""
    root, rows = tmp_path_factory.mktemp("assets"), []
    random = np.random.default_rng(0)
    for number in range(COUNT):
        name = f"gpteval3d-{number}"
        rows.append({"prompt_id": name, "prompt": LONG if number == 3 else f"object {number}"})
        views = random.integers(0, 256, (4, 4, 4, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
        (root / f"{name}.mp4").write_bytes(encode_mp4(views))
        gaussians = init_ball(40, generator=torch.Generator().manual_seed(number))
        gaussians.opacities += 3
        if number < COUNT - 1:
            write_ply(root / f"{name}.ply", gaussians)
    (root / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def evaluated(folder: Path, out: Path, *flags: str) -> tuple[int, dict[str, Any], list[dict[str, Any]]]:
    prompts = ["--prompts", str(folder / "prompts.jsonl"), "--out", str(out), "--pool.batch", "4"]
    code = evaluate.main(["--run", str(folder), *prompts, *flags])
    (summary,) = out.glob("evaluations/*/summary.json")
    rows = [row for part in out.glob("evaluations/*/scores/*.parquet") for row in pq.read_table(part).to_pylist()]
    return code, json.loads(summary.read_text()), rows


def test_judges_and_distances(folder: Path, qwen2_vl: Path, dinov2: Path, tmp_path: Path) -> None:
    trunk = import_torchvision().models.vgg16(weights=None).features.state_dict()
    save_file({f"features.{name}": value for name, value in trunk.items()}, tmp_path / "vgg.safetensors")
    (tmp_path / "real").mkdir()
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "real" / f"{number}.png")
    judges = [f"dists={tmp_path / 'vgg.safetensors'}", f"vqa={qwen2_vl}"]
    distances = ["--reference", str(tmp_path / "real"), "--features", str(dinov2)]
    views = ["--size", "32", "--num-views", "4"]
    code, summary, rows = evaluated(folder, tmp_path / "out", "--judges", *judges, *distances, *views)
    assert (code, len(rows)) == (0, COUNT)
    for row in rows:
        assert row["vqa_tiny-qwen_frames"] == pytest.approx(np.mean(row["vqa_tiny-qwen_frames_views"]))
        assert len(row["features_frames_tiny-dino"]) == 4 * 8
        assert row["cut_pocket"] == (row["prompt"].strip() == LONG.strip())
        assert (row["dists_renders_frames"] is None) == (row["prompt_id"] == f"gpteval3d-{COUNT - 1}")
    assert summary["scores"]["dists_renders_frames"]["count"] == COUNT - 1
    assert summary["scores"]["vqa_tiny-qwen_frames"]["count"] == COUNT
    assert summary["cut_prompts"] == {"pocket": {"count": 1, "named": ["gpteval3d-3"]}}
    near = summary["distances"]
    assert near["kd_renders_tiny-dino"]["low"] < near["kd_renders_tiny-dino"]["value"]
    assert near["fd_frames_tiny-dino"]["value"] > 0
    assert summary["protocol"]["reference"]["pictures"] == 12
    assert summary["protocol"]["models"]["dists"]["revision"].startswith("sha256:")


def test_protocols_of_others_are_fixed_and_refuse_ours(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, summary, rows = evaluated(folder, tmp_path / "trellis", "--protocol", "trellis")
    assert (code, len(rows)) == (1, COUNT - 1)
    assert "no model, and trellis judges no videos" in summary["without_scores"]["named"][0]["error_message"]
    assert len(rows[0]["clip_text_renders_pocket_views"]) == 4
    assert rows[0]["clip_text_frames_pocket"] is None
    assert summary["protocol"]["views"]["name"] == "trellis"
    prompts = ["--run", str(folder), "--prompts", str(folder / "prompts.jsonl"), "--out", str(tmp_path / "ours")]
    capsys.readouterr()
    ours = [*prompts, "--size", "32", "--num-views", "4"]
    for flags, message in [
        ([*prompts, "--protocol", "trellis", "--size", "32"], "protocol trellis says size 512, not 32"),
        ([*prompts, "--protocol", "trellis", "--consistency"], "look by protocol im3d"),
        ([*ours, "--against", str(tmp_path / "trellis")], "(protocol im3d here, trellis there)"),
        ([*ours, "--judges", "vqa=/nowhere"], "/nowhere is no folder; give a vision-language model"),
        ([*ours, "--judges", "lpips-vgg=/nowhere"], "/nowhere is no file; give the weights of LPIPS 'vgg'"),
        ([*ours, "--features", str(folder)], "--features and --reference go together"),
    ]:
        assert evaluate.main(flags) == 2
        assert message in capsys.readouterr().err


def test_reference_sets_that_do_not_serve_are_refused(
    folder: Path, dinov2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "real").mkdir()
    flags = ["--run", str(folder), "--prompts", str(folder / "prompts.jsonl"), "--out", str(tmp_path), "--size", "32"]
    flags += ["--num-views", "4", "--reference", str(tmp_path / "real"), "--features", str(dinov2)]
    assert evaluate.main(flags) == 2
    assert "the reference set is empty; give a folder of .png" in capsys.readouterr().err
    Image.linear_gradient("L").resize((40, 32)).save(tmp_path / "real" / "wide.png")
    (tmp_path / "real" / "broken.png").write_bytes(b"no picture")
    assert evaluate.main(flags) == 2
    said = capsys.readouterr().err
    assert "2 pictures of the reference set cannot be used: broken.png: unreadable image" in said
    assert "wide.png: image is 40x32, the protocol says 32x32" in said
