"""`im3d dataset`: runs become one data set that `datasets`, WebDataset and Croissant's validator read."""

from __future__ import annotations

import io
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

from factory.ledger.commit_protocol import commit
from factory.ledger.ledger import Ledger, file_entry
from factory.ledger.schemas import DEAD_LETTERS
from factory.stages.asset_ply import ply_bytes
from factory.stages.asset_table import assets_schema
from factory.stages.chain import written_columns
from factory.storage.store import open_store
from jobs import dataset
from recon.gaussians import init_ball
from recon.ply import read_ply

SCORE = "clip_text_renders_pocket"


def picture(number: int) -> bytes:
    """Pictures that differ: coloured shapes at places of their own."""
    random = np.random.default_rng(number)
    image = Image.new("RGB", (32, 32), tuple(random.integers(0, 255, 3).tolist()))
    draw = ImageDraw.Draw(image)
    for _ in range(4):
        x, y, w, h = random.integers(0, 24, 4).tolist()
        draw.rectangle((x, y, x + w, y + h), tuple(random.integers(0, 255, 3).tolist()))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def made_run(folder: Path | str, assets: dict[str, int], **columns: Any) -> Path | str:
    """A run with an asset for each id and the number of its picture, and one dead letter."""
    store, schema = open_store(str(folder)), assets_schema(written_columns(), [SCORE])
    for number, (name, look) in enumerate(assets.items()):
        files = {"asset.ply": ply_bytes(init_ball(20 + look)), "image.png": picture(look)}
        frames = [{"file_path": f"views/{k:02d}.png", "transform_matrix": np.eye(4).tolist()} for k in range(2)]
        cameras = {"w": 32, "h": 32, "fl_x": 40.0, "fl_y": 40.0, "cx": 16.0, "cy": 16.0, "frames": frames}
        files |= {"transforms.json": json.dumps(cameras).encode()}
        files |= {f"views/{k:02d}.png": picture(1000 + k) for k in range(2)}
        for file, data in files.items():
            store.put(f"files/{name}/{file}", data)
        row: dict[str, Any] = dict.fromkeys(schema.names) | {"prompt_id": name, "prompt": f"thing {name}", "seed": look}
        row |= {"image": {"bytes": files["image.png"], "path": f"files/{name}/image.png"}, SCORE: 10.0 + number}
        row |= {"ply": file_entry(f"files/{name}/asset.ply", files["asset.ply"])}
        row |= {"transforms": file_entry(f"files/{name}/transforms.json", files["transforms.json"])}
        row |= {"image_revision": "sha256:1", "image_license": "apache-2.0", "from_image": False, "cost_dollars": 0.5}
        commit(store, row | columns, schema)
        if number == 1:
            Ledger(store).publish()  # some in a part, others still as records
    letter: dict[str, Any] = dict.fromkeys(DEAD_LETTERS.names) | {"prompt_id": "dead", "prompt": "x"}
    commit(store, letter | {"error_stage": "video", "error_type": "OutOfMemory"}, DEAD_LETTERS)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two runs; `b/copy` looks like `a/n0`, and `b/nc` was made by a model of another licence."""
    folder = tmp_path_factory.mktemp("runs")
    first = made_run(folder / "a", {f"n{k}": k for k in range(12)})
    second = made_run(folder / "b", {"copy": 0, "new": 50}, video_license="cc-by-nc-4.0", video_revision="v1")
    return [str(first), str(second)]


def build(out: Path, *flags: str) -> int:
    return dataset.main(["--out", str(out), "--drop", "image", "--image-threshold", "0.999", *flags])


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(out.glob("data/*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_runs_are_merged_and_read_by_datasets(runs: list[str], tmp_path: Path, capsys) -> None:
    before = {path: path.stat().st_mtime_ns for run in runs for path in Path(run).rglob("*")}
    assert build(tmp_path / "set", "--runs", *runs, "--validation", "0.3", "--test", "0") == 0
    assert "13 assets added, 1 near-duplicates left out" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for run in runs for path in Path(run).rglob("*")} == before
    datasets = pytest.importorskip("datasets")
    read = datasets.load_dataset(str(tmp_path / "set"), streaming=True)
    assert set(read) == {"train", "validation"}
    found = {row["prompt_id"]: row for split in read.values() for row in split}
    assert sorted(found) == sorted([*(f"n{k}" for k in range(12)), "new"])
    row = found["n3"]
    assert (row["prompt"], row["caption"], row["caption_by"], row["seed"]) == ("thing n3", "thing n3", "prompt", 3)
    assert (row["run"], row["kind"], row["license"]) == ("a", "text", "apache-2.0")
    assert json.loads(row["models"]) == {"image": {"license": "apache-2.0", "revision": "sha256:1"}}
    np.testing.assert_array_equal(np.asarray(row["image"]), np.asarray(Image.open(io.BytesIO(picture(3)))))
    assert [np.asarray(view).shape for view in row["views"]] == [(32, 32, 3)] * 2
    assert row["scores"] == [{"name": SCORE, "value": 13.0}]
    (tmp_path / "back.ply").write_bytes(row["ply"])
    assert len(read_ply(tmp_path / "back.ply")) == 23
    assert b'comment im3d prompt "thing n3"\n' in row["ply"][:2000]
    assert row["image_cluster"] == row["asset_id"]
    assert found["new"]["license"] == "apache-2.0 AND cc-by-nc-4.0"


def test_a_second_call_adds_what_is_new_and_leaves_the_rest(runs: list[str], tmp_path: Path, capsys) -> None:
    out = tmp_path / "set"
    assert build(out, "--runs", runs[0]) == 0
    first = {path: path.read_bytes() for path in out.glob("data/*")}
    assert build(out, "--runs", runs[1]) == 0
    assert "1 assets added, 1 near-duplicates left out, 0 were there already" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in first} == first
    assert build(out, "--runs", *runs) == 0
    assert "0 assets added, 0 near-duplicates left out, 14 were there already" in capsys.readouterr().out
    together = tmp_path / "together"
    assert build(together, "--runs", *runs) == 0

    def described(place: Path) -> list[tuple[str, str, str]]:
        return sorted((row["asset_id"], row["split"], row["image_cluster"]) for row in rows_of(place))

    assert described(out) == described(together), "in one call or in two"
    card = (out / "README.md").read_text()
    assert "| a | 12 | 1 | 92.3% | 12 | 12 | 6.00 |" in card
    assert "| b | 2 | 1 | 66.7% | 2 | 1 | 1.00 |" in card


def test_an_interrupted_call_leaves_nothing_behind(runs: list[str], tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "set"
    assert build(out, "--runs", runs[1]) == 0
    names = {path.name for path in out.glob("data/*")}
    with monkeypatch.context() as patch:
        patch.setattr("factory.outputs.dataset.index.Index.commit", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert build(out, "--runs", runs[0]) == 1
    assert {path.name for path in out.glob("data/*")} > names, "a shard without a commit"
    assert build(out, "--runs", runs[0]) == 0
    counts = Counter(row["asset_id"] for row in rows_of(out))
    assert len(counts) == 13
    assert set(counts.values()) == {1}


def test_conditions_licences_and_sizes(runs: list[str], tmp_path: Path) -> None:
    flags = ["--runs", *runs, "--where", f"{SCORE} >= 11 AND seed < 60", "--licence-allow", "apache-2.0"]
    assert build(tmp_path / "set", *flags, "--size", "16", "--formats", "splat", "--pictures", "views") == 0
    rows = rows_of(tmp_path / "set")
    assert sorted(row["prompt_id"] for row in rows) == sorted(f"n{k}" for k in range(1, 12))
    assert not {"image", "ply"} & set(rows[0])
    assert {len(row["splat"]) for row in rows} == {32 * (20 + row["seed"]) for row in rows}
    assert Image.open(io.BytesIO(rows[0]["views"][1]["bytes"])).size == (16, 16)
    cameras = json.loads(rows[0]["transforms"])
    assert (cameras["w"], cameras["fl_x"], cameras["cx"]) == (16, 20.0, 8.0)


def test_near_duplicates_by_text(runs: list[str], tmp_path: Path) -> None:
    flags = ["--runs", runs[0], "--text-threshold", "0.01"]
    assert dataset.main(["--out", str(tmp_path / "text"), *flags, "--drop", "text"]) == 0
    assert [row["prompt_id"] for row in rows_of(tmp_path / "text")] == ["n0"], "all prompts are one cluster"
    assert dataset.main(["--out", str(tmp_path / "none"), *flags, "--drop", "none"]) == 0
    rows = rows_of(tmp_path / "none")
    assert len(rows) == 12
    assert len({row["text_cluster"] for row in rows}) == 1


def test_captions_are_written_for_assets_without_a_prompt(tiny_captioner: Path, tmp_path: Path) -> None:
    made_run(tmp_path / "mute", {"m0": 0, "m1": 1}, prompt="", from_image=True, image_license=None)
    made_run(tmp_path / "told", {"t0": 2})
    flags = ["--runs", str(tmp_path / "mute"), str(tmp_path / "told"), "--captioner.model", str(tiny_captioner)]
    assert build(tmp_path / "set", *flags) == 0
    found = {row["prompt_id"]: (row["caption"], row["caption_by"], row["kind"]) for row in rows_of(tmp_path / "set")}
    assert found["t0"] == ("thing t0", "prompt", "text")
    assert [found[name][1:] for name in ("m0", "m1")] == [(tiny_captioner.name, "picture")] * 2
    assert rows_of(tmp_path / "set")[0]["text_cluster"] is None or rows_of(tmp_path / "set")[0]["prompt"]


def test_the_card_keeps_its_tables_whatever_a_row_says(tmp_path: Path) -> None:
    made_run(tmp_path / "odd", {"o0": 0}, video_license="<b>my|own</b>\nlicence", video_revision="v")
    assert build(tmp_path / "set", "--runs", str(tmp_path / "odd")) == 0
    card = (tmp_path / "set/README.md").read_text()
    assert "&lt;b&gt;my\\|own&lt;/b&gt; licence AND apache-2.0 | 1 |" in card
    assert "license: other" in card


def test_croissant_is_valid_and_gives_records(runs: list[str], tmp_path: Path) -> None:
    mlcroissant = pytest.importorskip("mlcroissant")
    assert build(tmp_path / "set", "--runs", *runs) == 0
    read = mlcroissant.Dataset(jsonld=str(tmp_path / "set/croissant.json"))
    issues = read.metadata.ctx.issues
    assert (issues.errors, issues.warnings) == (set(), set())
    records = list(read.records("assets"))
    assert len(records) == 13
    assert {record["assets/prompt"] for record in records} == {
        *(f"thing n{k}".encode() for k in range(12)),
        b"thing new",
    }


def test_webdataset_reads_the_shards(runs: list[str], tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    assert build(tmp_path / "set", "--runs", *runs, "--container", "webdataset") == 0
    shards = [str(path) for path in sorted(tmp_path.glob("set/data/*.tar"))]
    samples = {s["json"]["prompt_id"]: s for s in webdataset.WebDataset(shards, shardshuffle=False).decode("rgb8")}
    assert len(samples) == 13
    assert samples["n4"]["image.png"].shape == (32, 32, 3)
    assert samples["n4"]["001.view.png"].shape == (32, 32, 3)
    assert samples["n4"]["ply"].startswith(b"ply\n")


def test_an_asset_that_cannot_be_read_costs_only_itself(runs: list[str], tmp_path: Path, capsys) -> None:
    shutil.copytree(runs[1], tmp_path / "b")
    (tmp_path / "b/files/copy/asset.ply").write_bytes(b"changed")
    assert build(tmp_path / "set", "--runs", str(tmp_path / "b"), runs[0]) == 1
    out = capsys.readouterr().out
    assert "asset.ply has changed since the run wrote it" in out
    assert "13 assets added, 0 near-duplicates left out, 0 were there already, 1 cannot be read" in out
    assert "n0" in {row["prompt_id"] for row in rows_of(tmp_path / "set")}, "it stands for no other"
    shutil.copy(f"{runs[1]}/files/copy/asset.ply", tmp_path / "b/files/copy/asset.ply")
    assert build(tmp_path / "set", "--runs", str(tmp_path / "b")) == 0
    assert "0 assets added, 1 near-duplicates left out, 1 were there already" in capsys.readouterr().out


def test_a_torn_picture_is_named(runs: list[str], tmp_path: Path, capsys) -> None:
    shutil.copytree(runs[1], tmp_path / "b")
    (tmp_path / "b/files/new/image.png").write_bytes(picture(50)[:60])
    (tmp_path / "b/files/copy/views/01.png").write_bytes(b"torn")
    assert build(tmp_path / "set", "--runs", str(tmp_path / "b"), "--size", "16") == 1
    out = capsys.readouterr().out
    assert out.count("cannot be decoded") == 2
    assert "0 assets added, 0 near-duplicates left out, 0 were there already, 2 cannot be read" in out
    assert not list(tmp_path.glob("set/data/*"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--runs", "{folder}/none"], "holds no assets; give the output of im3d generate with --runs"),
        (["--runs", "{run}", "--where", "clip_txt > 3"], "names 'clip_txt', which no run has as a column"),
        (["--runs", "{run}", "--where", "seed > 1000"], "holds for none of 12 assets; widen it"),
        (["--runs", "{run}", "--licence-allow", "mit"], "fits no asset; there are apache-2.0"),
        (["--runs", "{run}", "--formats", "hf"], "formats holds hf; a data set can hold ply"),
        (["--runs", "{run}", "--out", "{run}"], "holds something else than a data set; choose an empty --out"),
    ],
)
def test_mistakes_are_one_sentence(
    runs: list[str], tmp_path: Path, capsys, flags: list[str], message: str
) -> None:  # fmt: skip
    arguments = [flag.format(folder=tmp_path, run=runs[0]) for flag in flags]
    assert dataset.main(["--out", str(tmp_path / "out"), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.glob("out/data/*"))


def test_from_s3_to_s3(s3: str, capsys) -> None:
    made_run("s3://test/dataset/run", {"x0": 0, "x1": 1, "x2": 0})
    flags = ["--runs", "s3://test/dataset/run", "--out", "s3://test/dataset/set", "--image-threshold", "0.999"]
    assert dataset.main(flags) == 0
    assert "2 assets added, 1 near-duplicates left out" in capsys.readouterr().out
    store = open_store("s3://test/dataset/set")
    rows = [row for key in store.keys("data/") for row in pq.read_table(io.BytesIO(store.get(key))).to_pylist()]
    assert {row["prompt_id"] for row in rows} == {"x0", "x1"}
    assert dataset.main(flags) == 0
    assert "0 assets added, 0 near-duplicates left out, 3 were there already" in capsys.readouterr().out


def test_other_settings_want_another_folder(runs: list[str], tmp_path: Path, capsys) -> None:
    assert build(tmp_path / "set", "--runs", runs[1]) == 0
    assert build(tmp_path / "set", "--runs", runs[1], "--size", "64") == 2
    assert "size None, now 64: choose another --out" in capsys.readouterr().err
