"""`im3d evaluate`: scores beside the assets are those of the files, and bad assets are named, never averaged."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import torch
import trimesh
from PIL import Image

from eval.clip import Scorer
from eval.fidelity import psnr
from eval.small_clip import DEFAULT_CONFIG, build_clip, build_tokenizer, save_clip
from factory.evaluation.viewable_asset import Solid, Turn, read_shape
from factory.ledger.commit_protocol import commit
from factory.ledger.ledger import Ledger, file_entry
from factory.stages.asset_table import assets_schema
from factory.stages.chain import written_columns
from factory.storage.store import open_store
from jobs import evaluate, export, report, study
from recon.cameras import OrbitConfig, turntable
from recon.gaussians import init_ball, render
from recon.meshes.load import load_mesh
from recon.ply import read_ply, write_ply
from recon.video_io import decode_mp4, encode_mp4

pytestmark = pytest.mark.timeout(600)
PROMPTS = {"car": "a red car", "house": "a blue house", "cup": "a green cup"}
CHEAP = ["--size", "32", "--num-views", "4", "--pool.batch", "2"]
ALONE = [*CHEAP, "--runner", "inprocess"]


def likeness(scorer: Scorer, images: Sequence[np.ndarray], reference: np.ndarray) -> np.ndarray:
    """100 x cosine [B] of each picture with the picture `reference`."""
    return 100 * (scorer.embed_images(images) @ scorer.embed_images([reference])[0]).numpy()


@pytest.fixture(scope="module", autouse=True)
def _cluster():
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def judges(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    root = tmp_path_factory.mktemp("judges")
    for seed, name in enumerate(("first", "second")):
        torch.manual_seed(seed)
        build_tokenizer(list(PROMPTS.values()), DEFAULT_CONFIG, root / name)
        save_clip(root / name, build_clip(DEFAULT_CONFIG), DEFAULT_CONFIG)
    return [str(root / "first"), str(root / "second")]


def files(folder: Path, name: str, seed: int) -> None:
    """A video, a model and a picture of an asset, all of random content."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (4, 4, 4, 3), dtype=np.uint8)
    (folder / f"{name}.mp4").write_bytes(encode_mp4(coarse.repeat(8, 1).repeat(8, 2)))
    gaussians = init_ball(60, generator=torch.Generator().manual_seed(seed))
    gaussians.sh0 += torch.from_numpy(random.normal(0, 1, (60, 1, 3))).float()
    gaussians.opacities += 3
    write_ply(folder / f"{name}.ply", gaussians)
    Image.fromarray(coarse[0].repeat(8, 0).repeat(8, 1)).save(folder / f"{name}.png")


def make_run(folder: Path, seed: int) -> Path:
    """An output of `im3d generate` with three assets, as its ledger commits them."""
    store, schema = open_store(str(folder)), assets_schema(written_columns())
    for number, (name, prompt) in enumerate(PROMPTS.items()):
        files(folder / "files", name, 10 * seed + number)
        row: dict[str, Any] = dict.fromkeys(schema.names) | {"prompt_id": name, "prompt": prompt, "elevation": 0.2}
        for column, suffix in (("ply", "ply"), ("generated", "mp4"), ("turntable", "mp4")):
            row[column] = file_entry(f"files/{name}.{suffix}", (folder / f"files/{name}.{suffix}").read_bytes())
        row["image"] = {"bytes": (folder / f"files/{name}.png").read_bytes(), "path": f"files/{name}.png"}
        commit(store, row, schema)
    Ledger(store).publish()
    return folder


def scores(run: Path) -> dict[str, dict]:
    parts = run.glob("evaluations/*/scores/*.parquet")
    return {row["prompt_id"]: row for part in parts for row in pq.read_table(part).to_pylist()}


def summary(run: Path) -> dict[str, Any]:
    (found,) = run.glob("evaluations/*/summary.json")
    return json.loads(found.read_text())


def test_scores_are_those_of_the_files_and_runs_compare(tmp_path: Path, judges: list[str], capsys) -> None:
    run, other = make_run(tmp_path / "run", 1), make_run(tmp_path / "other", 2)
    before = {path: path.read_bytes() for path in (run / "assets").glob("*")}
    flags = ["--clip", *judges, *ALONE]
    assert evaluate.main(["--run", str(run), *flags]) == 0
    assert {path: path.read_bytes() for path in (run / "assets").glob("*")} == before
    rows = scores(run)
    assert sorted(rows) == sorted(PROMPTS)
    orbit = OrbitConfig(num_views=4)
    for judge in judges:
        scorer = Scorer.load(judge)
        for name, row in rows.items():
            with torch.no_grad():
                rgb, _ = render(read_ply(run / f"files/{name}.ply"), turntable(0.2, 32, orbit))
            views = {"frames": decode_mp4((run / f"files/{name}.mp4").read_bytes())}
            views["renders"] = (rgb.clamp(0, 1) * 255).round().byte().numpy()
            picture = np.asarray(Image.open(run / f"files/{name}.png"))
            for what, pictures in views.items():
                text = scorer.text_similarity(list(pictures), [PROMPTS[name]] * 4)
                assert row[f"clip_text_{what}_{scorer.name}_views"] == pytest.approx(text, abs=1e-3)
                assert row[f"clip_text_{what}_{scorer.name}"] == pytest.approx(text.mean(), abs=1e-3)
                like = likeness(scorer, list(pictures), picture)
                assert row[f"clip_image_{what}_{scorer.name}_views"] == pytest.approx(like, abs=1e-3)
                fits = scorer.embed_texts([*PROMPTS.values()]) @ scorer.embed_images(list(pictures)).mean(0)
                rank = int((fits > fits[list(PROMPTS).index(name)]).sum())
                assert row[f"rank_text_{what}_{scorer.name}"] == rank
    column = "clip_image_renders_first"
    mine = summary(run)
    values = [row[column] for row in rows.values()]
    assert mine["scores"][column]["mean"] == pytest.approx(np.mean(values))
    assert mine["scores"][column]["std"] == pytest.approx(np.std(values, ddof=1))
    assert mine["scores"]["r_precision_text_renders_first"]["at_5"] == 100
    assert mine["protocol"]["views"]["size"] == 32
    assert mine["protocol"]["models"]["second"]["revision"].startswith("sha256:")

    assert evaluate.main(["--run", str(run), *flags, "--against", str(other)]) == 2
    assert "has no evaluation" in capsys.readouterr().err
    assert evaluate.main(["--run", str(other), *flags, "--against", str(run)]) == 0
    theirs = summary(other)["against"]["columns"][column]
    there = scores(other)
    assert theirs["difference"] == pytest.approx(np.mean([there[n][column] - rows[n][column] for n in PROMPTS]))
    assert (theirs["count"], theirs["prompts_left_out"]) == (3, 0)
    capsys.readouterr()
    assert evaluate.main(["--run", str(run), *flags, "--beside", str(other), "--table", "2", "--form", "csv"]) == 0
    table = [line for line in csv.reader(capsys.readouterr().out.splitlines()) if len(line) == 3]
    text = "clip_text_renders_first"
    means = [np.mean([row[text] for row in part.values()]) for part in (rows, there)]
    lines = [line for line in table if line[0].endswith(", CLIP first")]
    assert [line[0].split(",")[0] for line in lines] == ["ours", "other"]
    assert [line[1].split(" ")[0] for line in lines] == [f"{mean:.2f}" for mean in means]
    assert (next(run.glob("evaluations/*")) / "table-2.csv").read_text().splitlines()[0].startswith("loss /")
    (judged,) = other.glob("evaluations/*")
    stated = (judged / "protocol.json").read_text().replace('"background": 1.0', '"background": 0.5')
    (judged / "protocol.json").write_text(stated)
    judged.rename(judged.with_name("0123456789abcdef-00000000"))
    assert evaluate.main(["--run", str(run), *flags, "--against", str(other)]) == 2
    message = capsys.readouterr().err
    assert "another protocol" in message
    assert "'background': 0.5" in message
    before = list(run.glob("evaluations/*/scores"))
    assert evaluate.main(["--run", str(run), *flags, "--background", "0.2", "--against", str(other)]) == 2
    assert list(run.glob("evaluations/*/scores")) == before  # refused before anything is scored


def test_bad_assets_are_named_and_never_averaged(tmp_path: Path, judges: list[str], capsys) -> None:
    folder = tmp_path / "folder"
    for number, name in enumerate(("good", "torn", "short", "stray", "blind")):
        files(folder, name, number)
    (folder / "torn.ply").write_bytes((folder / "torn.ply").read_bytes()[:900])
    (folder / "short.mp4").write_bytes(encode_mp4(np.zeros((3, 32, 32, 3), np.uint8)))
    (folder / "box.glb").write_bytes(trimesh.creation.box((1.0, 0.4, 0.6)).export(file_type="glb"))  # pyright: ignore
    table = [{"prompt_id": name, "prompt": f"a {name} car"} for name in ("good", "torn", "short", "box", "gone")]
    table.append({"prompt_id": "blind", "prompt": "a blind car", "image": "/nowhere.png"})
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, table)))
    flags = ["--run", str(folder), "--prompts", str(tmp_path / "prompts.jsonl"), "--clip", judges[0], *ALONE]
    assert evaluate.main(flags) == 1
    rows, found = scores(folder), summary(folder)
    assert sorted(rows) == ["box", "good"]
    assert rows["box"]["clip_text_frames_first"] is None
    assert rows["good"]["clip_image_frames_first"] is None
    assert found["scores"]["clip_text_renders_first"]["count"] == 2
    assert found["scores"]["clip_text_frames_first"]["count"] == 1
    reasons = {row["prompt_id"]: row["error_message"] for row in found["without_scores"]["named"]}
    assert sorted(reasons) == ["blind", "gone", "short", "stray", "torn"]
    assert "'/nowhere.png' lies outside" in reasons["blind"]
    assert "has no prompt" in reasons["stray"]
    assert "3 frames of 32x32; the protocol says 4" in reasons["short"]
    assert "cut short" in reasons["torn"]
    assert "neither video nor model" in reasons["gone"]
    assert "5 without scores" in capsys.readouterr().out


def test_known_objects_and_consistency(tmp_path: Path, judges: list[str], capsys) -> None:
    run, truth = make_run(tmp_path / "run", 5), tmp_path / "truth"
    truth.mkdir()
    ball = trimesh.creation.icosphere(2, 0.5)
    ball.export(truth / "car.glb")
    table = [{"id": "car", "path": "car.glb", "caption": "a ball"}, {"id": "cup", "path": "gone.glb"}]
    (truth / "assets.jsonl").write_text("\n".join(map(json.dumps, table)))
    flags = ["--run", str(run), "--clip", judges[0], *ALONE, "--consistency", "--truth"]
    assert evaluate.main([*flags, str(truth)]) == 1
    rows, found = scores(run), summary(run)
    assert sorted(rows) == ["car", "house"]
    assert "no file 'gone.glb'" in found["without_scores"]["named"][0]["error_message"]
    assert found["without_truth"] == 1
    assert rows["house"]["psnr_renders"] is None
    turn = Turn(elevation=0.2, size=32, orbit=OrbitConfig(num_views=8), start=np.pi / 4)
    shape = read_shape((run / "files/car.ply").read_bytes(), "car.ply")
    true = Solid(load_mesh(truth / "car.glb"), fine=True)
    expected = psnr(shape.pictures(turn)[..., :3], true.pictures(turn)[..., :3])
    assert rows["car"]["psnr_renders"] == pytest.approx(expected.mean())
    assert rows["car"]["ms_ssim_renders"] is None
    assert 0 <= rows["car"]["mask_iou_renders"] <= 1
    assert rows["car"]["chamfer"] > 0
    assert found["scores"]["chamfer"]["count"] == 1
    assert found["scores"]["yield_probability"]["count"] == 2
    for row in rows.values():
        assert 0 <= row["yield_probability"] <= 1
        assert row["residual_psnr"] < 40
        assert row["flow_residual"] >= 0
    assert found["protocol"]["measures"]["fidelity"]["views"] == 8
    (truth / "assets.jsonl").write_text(json.dumps({"id": "boat", "path": "car.glb"}))
    assert evaluate.main([*flags, str(truth)]) == 2
    assert "no prompt_id of" in capsys.readouterr().err


def test_a_folder_and_its_prompts_in_s3(tmp_path: Path, judges: list[str], s3: str) -> None:
    ray.shutdown()  # its workers know no credentials
    files(tmp_path, "car", 6)
    store = open_store("s3://test/evaluated")
    for suffix in ("mp4", "ply"):
        store.put(f"car.{suffix}", (tmp_path / f"car.{suffix}").read_bytes())
    row = {"prompt_id": "car", "prompt": PROMPTS["car"], "image": (tmp_path / "car.png").read_bytes()}
    table = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([row]), table)
    store.put("prompts.parquet", table.getvalue().to_pybytes())
    flags = ["--prompts", "s3://test/evaluated/prompts.parquet", "--clip", judges[0], *CHEAP]
    assert evaluate.main(["--run", "s3://test/evaluated", *flags]) == 0
    (key,) = [key for key in store.keys("evaluations/") if "/scores/part-" in key]
    (there,) = pq.read_table(pa.BufferReader(store.get(key))).to_pylist()
    scorer, frames = Scorer.load(judges[0]), list(decode_mp4((tmp_path / "car.mp4").read_bytes()))
    text = scorer.text_similarity(frames, [PROMPTS["car"]] * 4).mean()
    image = likeness(scorer, frames, np.asarray(Image.open(tmp_path / "car.png"))).mean()
    assert there["clip_text_frames_first"] == pytest.approx(text, abs=1e-3)
    assert there["clip_image_frames_first"] == pytest.approx(image, abs=1e-3)
    assert there["clip_text_renders_first"] is not None
    (figures,) = [key for key in store.keys("evaluations/") if "/reports/" in key]
    assert json.loads(store.get(figures))["rows"] == {"total": 1, "done": 1, "failed": 0, "left": 0}
    ray.shutdown()


def listing(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, and what it holds."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextmanager
def writer_of(run: Path) -> Iterator[None]:
    """Another process that holds the folder of a run, as `im3d generate` does while it goes on."""
    code = (
        "import sys; from factory.ledger.lease import Lease; from factory.storage.local import LocalStore\n"
        "with Lease(LocalStore(sys.argv[1]), beat_seconds=3600): print('held', flush=True); sys.stdin.read()"
    )
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", code, str(run)]
    with subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield
        process.communicate("")
    assert process.returncode == 0


def test_reading_jobs_leave_a_run_that_goes_on_as_it_is(tmp_path: Path, judges: list[str], capsys) -> None:
    run, out = make_run(tmp_path / "run", 3), tmp_path / "out"
    store, schema = open_store(str(run)), assets_schema(written_columns())
    row = pq.read_table(next((run / "assets").glob("*.parquet"))).to_pylist()[0]
    commit(store, {name: row.get(name) for name in schema.names} | {"prompt_id": "late"}, schema)  # not published yet
    flags = ["--run", str(run), "--clip", judges[0], *ALONE]
    with writer_of(run):
        before = listing(run)
        assert evaluate.main([*flags, "--out", str(out)]) == 0
        assert report.main(["--run", str(run), "--out", str(out)]) == 0
        exporting = ["--format", "ply", "--out", str(tmp_path / "ply"), "--runner", "inprocess"]
        assert export.main(["--run", str(run), *exporting]) == 0
        study_of = ["make", "--runs", str(run), str(run), "--labels", "a", "b", "--out", str(tmp_path / "study")]
        assert study.main(study_of) == 0
        assert listing(run) == before
        assert evaluate.main(flags) == 0
        added = listing(run).keys() - before.keys()
        assert {name: data for name, data in listing(run).items() if name not in added} == before
        assert {name.split("/")[0] for name in added} == {"evaluations"}
    assert sorted(scores(out)) == sorted(scores(run)) == sorted([*PROMPTS, "late"])
    assert sorted(path.name for path in (tmp_path / "ply/ply").glob("*.ply")) == sorted(
        f"{name}.ply" for name in (*PROMPTS, "late")
    )
    assert "clip_text_renders_first" in (out / "report/contents.js").read_text()
    events = [json.loads(line) for line in next(out.glob("evaluations/*/events.jsonl")).read_text().splitlines()]
    assert [events[0]["event"], events[-1]["event"]] == ["run_started", "run_finished"]
    (figures,) = out.glob("evaluations/*/reports/*.json")
    assert json.loads(figures.read_text())["rows"] == {"total": 4, "done": 4, "failed": 0, "left": 0}


def test_two_evaluations_of_one_protocol_do_not_meet(tmp_path: Path, judges: list[str], capsys) -> None:
    run = make_run(tmp_path / "run", 3)
    flags = ["--run", str(run), "--clip", judges[0], *ALONE]
    assert evaluate.main(flags) == 0
    with writer_of(next(run.glob("evaluations/*"))):
        assert evaluate.main(flags) == 2
    assert "writes here" in capsys.readouterr().err


def test_empty_runs_are_refused(tmp_path: Path, judges: list[str], capsys) -> None:
    (tmp_path / "empty").mkdir()
    assert evaluate.main(["--run", str(tmp_path / "empty"), "--clip", judges[0]]) == 2
    assert "holds no assets" in capsys.readouterr().err
    assert not list((tmp_path / "empty").iterdir())


def test_image_prompts_are_opened_as_pictures_are_everywhere(tmp_path: Path, judges: list[str], capsys) -> None:
    """Upright by EXIF, within the limits, and never by a decoder of another format."""
    picture = Image.new("RGB", (40, 24), "white")
    picture.paste((200, 30, 30), (4, 4, 16, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "plain.png")
    picture.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    picture.save(tmp_path / "eps.png", "EPS")
    Image.new("1", (6000, 6000)).save(tmp_path / "large.png")
    Image.new("RGB", (40, 24)).save(tmp_path / "black.png")
    names = ["plain", "turned", "eps", "large", "black"]
    (tmp_path / "models").mkdir()
    gaussians = init_ball(60, generator=torch.Generator().manual_seed(1))
    for name in names:
        write_ply(tmp_path / f"models/{name}.ply", gaussians)
    rows = [{"prompt_id": name, "prompt": "a red car", "image": f"{name}.png"} for name in names]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    flags = ["--run", str(tmp_path / "models"), "--prompts", str(tmp_path / "p.jsonl"), "--clip", judges[0], *ALONE]
    assert evaluate.main(flags) == 1
    found = scores(tmp_path / "models")
    assert sorted(found) == ["plain", "turned"]
    column = "clip_image_renders_first"
    assert found["plain"][column] == pytest.approx(found["turned"][column], abs=1e-4)
    told = capsys.readouterr().out
    for name, reason in {
        "eps": "unreadable image: broken, or no picture. Available formats: PNG, JPEG, WEBP",
        "large": "image has 6000x6000 pixels; the limit is 33554432: shrink it",
        "black": "image shows one colour all over, (0, 0, 0)",
    }.items():
        assert f"{name}: {reason}" in told
