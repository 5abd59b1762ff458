"""`im3d generate` on the embedded models at their cheapest settings: the files and tables it leaves behind."""

from __future__ import annotations

import hashlib
import io
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
import torch
import trimesh
import yaml
from PIL import Image

from eval.small_clip import DEFAULT_CONFIG, build_clip, build_tokenizer, save_clip
from factory.line.metrics import Metrics
from jobs import export, generate, report, retry
from recon.cameras import turntable
from recon.gaussians import render
from recon.ply import read_ply
from recon.video_io import decode_mp4

pytestmark = pytest.mark.timeout(600)
CHEAP = ["--image.steps", "2", "--video.steps", "2", "--video.refine-steps", "1", "--fit.iterations", "30"]
CHEAP += [
    "--line.pools",
    "reconstruct=1",
    "--refine.rounds-at",
    "20",
    "--views.elevation",
    "0.3",
    "--files.turntable-frames",
    "32",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory):
    """One run over a prompt, a prompt with its own image, and three rows that cannot be made."""
    folder = tmp_path_factory.mktemp("generate")
    torch.manual_seed(0)
    build_tokenizer(["a red car", "a blue house"], DEFAULT_CONFIG, folder / "judge")
    save_clip(folder / "judge", build_clip(DEFAULT_CONFIG), DEFAULT_CONFIG)
    picture = np.zeros((96, 96, 4), np.uint8)
    picture[20:80, 30:70] = (200, 40, 40, 255)
    Image.fromarray(picture).save(folder / "box.png")
    (folder / "broken.png").write_bytes((folder / "box.png").read_bytes()[:50])
    rows = [
        {"prompt_id": "text", "prompt": "a <b>red</b> car"},
        {"prompt_id": "image", "prompt": "a box", "image": "box.png", "seed": 3, "size_metres": 0.4},
        {"prompt_id": "broken", "prompt": "a box", "image": "broken.png"},
        {"prompt_id": "empty", "prompt": ""},
        {"prompt_id": "../up", "prompt": "a box"},
    ]
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    flags = ["--prompts", str(folder / "prompts.jsonl"), "--out", str(folder / "out"), *CHEAP]
    flags += ["--clip.model", str(folder / "judge"), "--cost.cpu-hour-price", "3.6"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Metrics, "set_run_gauges", recording_cost(Metrics.set_run_gauges))
        code = generate.main(flags)
    ray.shutdown()
    return folder / "out", flags, code


COSTS: list[float] = []
"""What the driver showed Prometheus as the cost so far, look by look."""


def recording_cost(set_run_gauges: Any) -> Any:
    """`Metrics.set_run_gauges` that notes what it shows."""

    def set_gauges(metrics: Metrics, tally: Any, dollars: float) -> None:
        COSTS.append(dollars)
        set_run_gauges(metrics, tally, dollars)

    return set_gauges


def table(out: Path, folder: str) -> dict[str, dict]:
    rows = [row for part in (out / folder).glob("*.parquet") for row in pq.read_table(part).to_pylist()]
    assert len({row["prompt_id"] for row in rows}) == len(rows)
    return {row["prompt_id"]: row for row in rows}


def test_every_row_has_one_outcome(run) -> None:
    out, _, code = run
    assert code == 1
    assert sorted(table(out, "assets")) == ["image", "text"]
    dead = table(out, "dead_letters")
    reasons = {name: (row["error_stage"], row["error_type"]) for name, row in dead.items()}
    assert reasons == {
        "broken": ("image", "ValueError"),
        "empty": ("prompts", "EmptyPrompt"),
        "../up": ("prompts", "InvalidId"),
    }
    assert "unreadable image" in dead["broken"]["error_message"]


def test_rows_say_how_the_asset_was_made(run) -> None:
    out, _, _ = run
    text, image = (table(out, "assets")[name] for name in ("text", "image"))
    assert (text["from_image"], image["from_image"], image["seed"]) == (False, True, 3)
    assert (text["size_metres"], image["size_metres"]) == (None, 0.4)
    assert (text["steps_image"], image["steps_image"]) == (2, None)
    for row in (text, image):
        assert (row["steps_video"], row["steps_refine"]) == (2, 1)
        assert row["forwards_video"] == 2
        assert row["video_revision"].startswith("sha256:")
        networks = {network["name"]: network for network in row["networks"]}
        assert networks["video"]["revision"] == row["video_revision"]
        assert (row["elevation"], row["num_views"]) == (pytest.approx(0.3), 16)
        assert all(row[f"seconds_{stage}"] > 0 for stage in ("image", "video", "views", "reconstruct", "score"))
        assert [loss["step"] for loss in row["losses"] if loss["name"] == "lpips_pocket"] == [20, 30]
        scores = {name: value for name, value in row.items() if name.startswith("clip_")}
        kinds = [f"clip_{kind}_{what}_judge" for kind in ("image", "text") for what in ("frames", "renders")]
        assert sorted(scores) == kinds
        assert all(-100 <= value <= 100 for value in scores.values())
    settings = yaml.safe_load((out / "config.yaml").read_text())
    assert (settings["fit"]["iterations"], settings["refine"]["rounds_at"]) == (30, [20])


def test_an_asset_is_exported_in_the_metres_of_its_prompt(run, tmp_path: Path) -> None:
    out, _, _ = run
    to = ["--format", "glb", "--out", str(tmp_path / "export"), "--runner", "inprocess"]
    assert export.main(["--run", str(out), *to]) == 0
    sides = {}
    for name in ("image", "text"):
        (file,) = (tmp_path / "export").rglob(f"{name}*.glb")
        scene: Any = trimesh.load_scene(file)
        sides[name] = scene.extents.max()
    assert sides["image"] == pytest.approx(0.4, rel=1e-4)
    assert 0.45 < sides["text"] <= 2  # in the unit sphere


WITHOUT_RAY = """
import sys
from jobs import generate
code = generate.main(sys.argv[1:])
print("imported", *[name for name in sys.modules if name.partition(".")[0] == "ray"])
sys.exit(code)
"""


def test_without_ray_the_same_assets_come_out(run, tmp_path: Path) -> None:
    out, flags, code = run
    flags = [str(tmp_path) if flag == str(out) else flag for flag in flags]
    command = [sys.executable, "-c", WITHOUT_RAY, *flags, "--line.runner", "inprocess"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    assert done.stdout.splitlines()[-1] == "imported"
    assert "try_failed: stage image, prompt_ids ['broken']" in done.stderr
    assert "Traceback (most recent call last):" in done.stderr
    for folder in ("assets", "dead_letters"):
        rows, others = table(out, folder), table(tmp_path, folder)
        assert rows.keys() == others.keys()
        for name, row in rows.items():
            assert settled(row) == settled(others[name])
    files = {path.relative_to(out): path.read_bytes() for path in (out / "files").rglob("*") if path.is_file()}
    assert len(files) > 20
    assert files == {path.relative_to(tmp_path): path.read_bytes() for path in (tmp_path / "files").rglob("*.*")}
    assert (tmp_path / "index.html").exists()
    assert json.loads(next((tmp_path / "reports").iterdir()).read_bytes())["rows"]["done"] == 2


def settled(row: dict[str, Any]) -> dict[str, Any]:
    """A row without times, their costs, and what names the run."""
    changing = ("seconds", "cost", "run_id")
    return {name: value for name, value in row.items() if not any(word in name for word in changing)}


def test_files_are_what_the_rows_say(run) -> None:
    out, _, _ = run
    for row in table(out, "assets").values():
        for column in ("ply", "turntable", "generated", "transforms"):
            data = (out / row[column]["path"]).read_bytes()
            assert (hashlib.sha256(data).hexdigest(), len(data)) == (row[column]["sha256"], row[column]["size"])
        assert decode_mp4((out / row["turntable"]["path"]).read_bytes()).shape == (32, 128, 128, 3)
        assert decode_mp4((out / row["generated"]["path"]).read_bytes()).shape == (16, 128, 128, 3)
        assert (out / row["image"]["path"]).read_bytes() == row["image"]["bytes"]
        assert len(read_ply(out / row["ply"]["path"])) == row["num_gaussians"]


def test_given_image_is_the_one_that_was_used(run) -> None:
    out, _, _ = run
    picture = np.asarray(Image.open(io.BytesIO(table(out, "assets")["image"]["image"]["bytes"])))
    middle = picture.shape[0] // 2
    assert tuple(picture[middle, middle]) == (200, 40, 40, 255)
    assert picture[0, 0, 3] == 0


def test_transforms_describe_the_views(run) -> None:
    """The cameras of transforms.json, read by nerfstudio's rules, show what the PNGs beside it show."""
    out, _, _ = run
    path = out / table(out, "assets")["text"]["transforms"]["path"]
    document = json.loads(path.read_text())
    expected = turntable(0.3, 128)
    assert len(document["frames"]) == 16
    for k, frame in enumerate(document["frames"]):
        matrix = np.array(frame["transform_matrix"])
        position = matrix[:3, 3]
        assert np.linalg.norm(position) == pytest.approx(3.0115, abs=1e-4)
        assert math.asin(position[1] / 3.0115) == pytest.approx(0.3, abs=1e-4)
        np.testing.assert_allclose(matrix[:3, 2], position / 3.0115, atol=1e-4)
        flip = np.diag([1.0, -1.0, -1.0, 1.0])
        np.testing.assert_allclose(np.linalg.inv(matrix @ flip), expected.viewmats[k], atol=1e-4)
    with torch.no_grad():
        _, alpha = render(read_ply(path.with_name("asset.ply")), expected)
    views = [np.asarray(Image.open(path.parent / frame["file_path"])) for frame in document["frames"]]
    np.testing.assert_allclose(np.stack(views)[..., 3], alpha[..., 0] * 255, atol=1.0)


def test_page_escapes_the_prompt(run) -> None:
    out, _, _ = run
    page = (out / "index.html").read_text()
    assert "a &lt;b&gt;red&lt;/b&gt; car" in page
    assert "<b>red" not in page


def test_the_run_leaves_its_events_its_report_and_its_cost(run) -> None:
    out, _, _ = run
    events = [json.loads(line) for line in (out / "events.jsonl").read_text().splitlines()]
    names = [event["event"] for event in events]
    assert (names[0], names[-1]) == ("run_started", "run_finished")
    assert {"line_placed", "stage_ready", "row_failed"} < set(names)
    ready = {event["stage"] for event in events if event["event"] == "stage_ready"}
    assert ready == {"image", "video", "views", "reconstruct", "score", "commit"}
    assert [event["prompt_id"] for event in events if event["event"] == "row_failed"] == ["broken"]
    (file,) = (out / "reports").glob("*.json")
    figures = json.loads(file.read_text())
    assert figures["rows"] == {"total": 3, "done": 2, "failed": 1, "left": 0}
    assert (
        {event["run_id"] for event in events}
        == {figures["run_id"]}
        == {row["run_id"] for row in table(out, "assets").values()}
    )
    # every actor holds a quarter of a CPU at 3.6 dollars an hour
    assert figures["total"]["dollars"] == pytest.approx(figures["total"]["actor_seconds"] * 0.25 * 3.6 / 3600)
    assert figures["total"]["actor_seconds"] > 0
    assert events[-1]["dollars"] == pytest.approx(figures["total"]["dollars"], abs=1e-4)
    assert sorted(COSTS) == COSTS
    assert COSTS[-1] == pytest.approx(figures["total"]["dollars"])
    assert report.main(["--run", str(out)]) == 0
    page = Path(f"{out}-report", "report.html").read_text()
    assert "<h2>Last run</h2>" in page
    assert f"2 of 3 rows done, 1 failed, in {figures['seconds']:.0f} s" in page


def test_second_run_does_nothing_and_says_so(run, capsys: pytest.CaptureFixture[str]) -> None:
    out, flags, _ = run
    before = {path: path.stat().st_mtime_ns for path in (out / "files").rglob("*") if path.is_file()}
    assert generate.main(flags) == 1
    assert "Nothing to do: all 3 prompts" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (out / "files").rglob("*") if path.is_file()} == before


def test_other_settings_are_refused_with_the_difference(run, capsys: pytest.CaptureFixture[str]) -> None:
    _, flags, _ = run
    assert generate.main([*flags, "--fit.iterations", "31"]) == 2
    assert "fit.iterations: 30 -> 31" in capsys.readouterr().err


def test_mended_dead_letters_are_retried_by_stage(run, capsys: pytest.CaptureFixture[str]) -> None:
    out, _, _ = run
    (out.parent / "broken.png").write_bytes((out.parent / "box.png").read_bytes())
    assert retry.main(["--out", str(out), "--stage", "video"]) == 0
    assert "No such dead letters" in (said := capsys.readouterr().out)
    assert "image: " in said
    assert "prompts: EmptyPrompt" in said
    assert retry.main(["--out", str(out), "--error", "EmptyPrompt"]) == 2
    assert "none of the dead letters can run again" in capsys.readouterr().err
    assert sorted(table(out, "dead_letters")) == ["../up", "broken", "empty"]
    assert retry.main(["--out", str(out), "--stage", "image"]) == 0
    ray.shutdown()
    assert sorted(table(out, "assets")) == ["broken", "image", "text"]
    assert sorted(table(out, "dead_letters")) == ["../up", "empty"]
