"""`im3d export`: what is written can be read, agrees with the asset, and bad assets cost only themselves."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
import tinyusdz
import torch
import trimesh
from PIL import Image

from factory.ledger.commit_protocol import commit
from factory.ledger.finished_assets import assets_of_files, assets_of_run
from factory.ledger.ledger import DEAD, Ledger, file_entry
from factory.outputs.export import Export, ExportWork, results_of
from factory.outputs.export_settings import ExportConfig
from factory.outputs.glb import Glb
from factory.outputs.training_formats import DEPTH_UNIT
from factory.stages.asset_table import assets_schema
from factory.stages.chain import written_columns
from factory.storage.read_only import open_read_only
from factory.storage.store import open_store
from jobs import export
from recon.config import MeshConfig
from recon.gaussians import Gaussians
from recon.ply import read_ply, write_ply

pytestmark = pytest.mark.timeout(600)
CHEAP = ["--size", "48", "--num-views", "3", "--pool.actors", "1", "--pool.batch", "4"]
RADIUS = 0.5
IDS = ("a.red", "blue")


@pytest.fixture(scope="module", autouse=True)
def _cluster():
    yield
    ray.shutdown()


def ball(colour: tuple[float, float, float]) -> Gaussians:
    """Small opaque Gaussians on a sphere of RADIUS."""
    points = torch.nn.functional.normalize(torch.randn(1500, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    return Gaussians(
        means=RADIUS * points,
        quats=torch.tensor([1.0, 0, 0, 0]).repeat(1500, 1),
        scales=torch.full((1500, 3), 0.03).log(),
        opacities=torch.full((1500,), 4.0),
        sh0=(torch.tensor(colour) - 0.5).expand(1500, 1, 3) / 0.28209479177387814,
        shN=torch.zeros(1500, 0, 3),
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two good assets, one whose file was changed afterwards and one whose file is gone."""
    folder = tmp_path_factory.mktemp("run")
    store, schema = open_store(str(folder)), assets_schema(written_columns())
    for name, colour in (("a.red", (1, 0, 0)), ("blue", (0, 0, 1)), ("changed", (0, 1, 0)), ("gone", (0, 1, 0))):
        (folder / "files").mkdir(exist_ok=True)
        write_ply(folder / f"files/{name}.ply", ball(colour))
        picture = io.BytesIO()
        Image.new("RGB", (8, 8), name if name == "blue" else "red").save(picture, "PNG")
        (folder / f"files/{name}.png").write_bytes(picture.getvalue())
        row: dict[str, Any] = dict.fromkeys(schema.names) | {"prompt_id": name, "prompt": f"a {name} ball", "seed": 3}
        row |= {"size_metres": 0.25 if name == "blue" else None, "config_fingerprint": "f0"}
        row |= {"video_revision": "sha256:1", "video_license": "mit + openrail++"}
        row |= {"elevation": 0.2, "image": {"bytes": picture.getvalue(), "path": f"files/{name}.png"}}
        row["ply"] = file_entry(f"files/{name}.ply", (folder / f"files/{name}.ply").read_bytes())
        commit(store, row, schema)
        if name == "blue":
            Ledger(store).publish()  # two assets in a part, two still as records
    store.put("configs/f0.yaml", b"video: {model: svd}\n")
    write_ply(folder / "files/changed.ply", ball((1, 1, 1)))
    (folder / "files/gone.ply").unlink()
    return folder


def check_sphere(depths: np.ndarray, normals: np.ndarray, masks: np.ndarray, transform: np.ndarray) -> None:
    """The middle of a view of the ball: its distance, a normal towards the camera, and its outline."""
    middle = 48 // 2
    assert depths[middle, middle] * DEPTH_UNIT == pytest.approx(3.0115 - RADIUS, abs=0.1)
    assert depths[0, 0] == 0
    towards = transform[:3, 3] / np.linalg.norm(transform[:3, 3])
    around = normals[middle - 4 : middle + 4, middle - 4 : middle + 4].astype(float) / 127.5 - 1
    assert around.mean((0, 1)) @ towards > 0.95 * np.linalg.norm(around.mean((0, 1)))
    assert masks[middle, middle] > 250
    assert masks[0, 0] == 0


def exported(assets: list[dict[str, Any]], out: Path, **settings: Any) -> dict[str, str]:
    """Export in this process; returns the reasons of the dead letters."""
    config = ExportConfig(size=48, num_views=3, **settings)
    work = ExportWork(assets=assets)
    Export(config, str(out), "r")(work.table(range(len(assets)), 1))
    ledger = Ledger(open_store(str(out)), results_of(config))
    ledger.publish()
    return {row["prompt_id"]: row["error_message"] for row in ledger.rows(DEAD)}


def picture(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_nerfstudio_folders_hold_views_with_geometry_and_cameras(run: Path, tmp_path: Path) -> None:
    assert sorted(exported(assets_of_run(open_read_only(str(run))), tmp_path, format="nerfstudio")) == [
        "changed",
        "gone",
    ]
    folder = tmp_path / "a.red"
    document = json.loads((folder / "transforms.json").read_text())
    assert len(document["frames"]) == 3
    for frame in document["frames"]:
        image = picture((folder / frame["file_path"]).read_bytes())
        mask = picture((folder / frame["file_path"].replace("images", "masks")).read_bytes())
        assert (image[mask > 250][:, :3] == (255, 0, 0)).all()
        np.testing.assert_array_equal(image[..., 3], mask)
        depth = picture((folder / frame["depth_file_path"]).read_bytes())
        normal = picture((folder / frame["normal_file_path"]).read_bytes())
        check_sphere(depth, normal, mask, np.array(frame["transform_matrix"]))
        position = np.array(frame["transform_matrix"])[:3, 3]
        np.testing.assert_allclose(position[1], 3.0115 * np.sin(0.2), atol=1e-4)
        # the object's points project onto its mask by the written camera
        inverse = np.linalg.inv(np.array(frame["transform_matrix"]) @ np.diag([1, -1, -1, 1.0]))
        points = np.asarray(read_ply(folder / "asset.ply").means) @ inverse[:3, :3].T + inverse[:3, 3]
        pixels = (document["fl_x"] * points[:, :2] / points[:, 2:] + document["cx"]).astype(int)
        assert (mask[pixels[:, 1], pixels[:, 0]] > 60).mean() > 0.95
    cloud = trimesh.load(folder / "points.ply")
    assert len(cloud.vertices) == 1500
    assert (np.asarray(cloud.colors)[:, :3] == (255, 0, 0)).all()


def test_job_resumes_names_bad_assets_and_refuses_other_settings(run: Path, tmp_path: Path, capsys) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    flags = ["--run", str(run), "--format", "webdataset", "--out", str(tmp_path), *CHEAP]
    place = tmp_path / "webdataset"
    assert export.main([*flags, "--limit", "1"]) == 0
    first = (place / "shards/shard-000000.tar").read_bytes()
    assert export.main(flags) == 1
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before, "the run is only read"
    out = capsys.readouterr().out
    assert "2 of 4 assets exported, 2 are dead letters" in out
    assert "changed: files/changed.ply has changed since the run wrote it" in out
    assert "gone: files/gone.ply is missing" in out
    assert (place / "shards/shard-000000.tar").read_bytes() == first
    assert sorted(path.name for path in place.glob("shards/*")) == ["shard-000000.tar", "shard-000001.tar"]
    assert not list(place.glob("samples/*.tar"))
    with tarfile.open(fileobj=io.BytesIO(first)) as archive:
        files = {name: archive.extractfile(name).read() for name in archive.getnames()}  # type: ignore[union-attr]
    assert {name.split(".", 1)[0] for name in files} == {"a%2Ered"}, "one sample, whose key holds no dot"
    about = json.loads(files["a%2Ered.json"])
    assert (about["prompt_id"], about["prompt"]) == ("a.red", "a a.red ball")
    depths = np.load(io.BytesIO(files["a%2Ered.depths.npz"]))["depths"]
    for k in range(3):
        normal, mask = (picture(files[f"a%2Ered.{k:03d}.{kind}.png"]) for kind in ("normal", "mask"))
        check_sphere(depths[k], normal, mask, np.array(about["transforms"][k]))
    assert export.main([*flags, "--limit", "2"]) == 0
    assert "Nothing to do" in capsys.readouterr().out
    assert export.main([*flags, "--size", "64"]) == 2
    assert "size 48, now 64: choose another --out" in capsys.readouterr().err


def test_a_job_without_ray(run: Path, tmp_path: Path, capsys) -> None:
    flags = ["--run", str(run), "--format", "ply", "--out", str(tmp_path), "--runner", "inprocess"]
    ray.shutdown()
    assert export.main(flags) == 1
    assert not ray.is_initialized()
    said = capsys.readouterr()
    assert "2 of 4 assets exported, 2 are dead letters" in said.out
    assert "files/gone.ply is missing" in said.err, "where the row failed"
    (figures,) = (tmp_path / "ply/reports").glob("*.json")
    assert json.loads(figures.read_text())["rows"] == {"total": 4, "done": 2, "failed": 2, "left": 0}


def test_parquet_is_ready_for_datasets(run: Path, tmp_path: Path) -> None:
    config = ExportConfig(format="hf", size=48, num_views=3)
    export.write_card(open_store(str(tmp_path / "hf")), config)
    exported(assets_of_run(open_read_only(str(run))), tmp_path / "hf", format="hf")
    (part,) = (tmp_path / "hf/data").glob("*.parquet")
    rows = {row["prompt_id"]: row for row in pq.read_table(part).to_pylist()}
    assert sorted(rows) == ["a.red", "blue"]
    row = rows["blue"]
    assert picture(row["images"][0]["bytes"])[24, 24].tolist() == [0, 0, 255, 255]
    assert picture(row["image"]["bytes"])[0, 0].tolist() == [0, 0, 255]
    for k in range(3):
        depth, normal, mask = (picture(row[kind][k]["bytes"]) for kind in ("depths", "normals", "masks"))
        check_sphere(depth, normal, mask, np.array(row["transforms"][k]).reshape(4, 4))
    (tmp_path / "asset.ply").write_bytes(row["ply"])
    assert len(read_ply(tmp_path / "asset.ply")) == 1500
    datasets = pytest.importorskip("datasets")
    read = datasets.load_dataset(str(tmp_path / "hf"), split="train", cache_dir=str(tmp_path / "cache"))
    assert isinstance(read.features["normals"].feature, datasets.Image)
    found = next(row for row in read if row["prompt_id"] == "blue")
    assert np.asarray(found["images"][1]).shape == (48, 48, 4)
    assert np.asarray(found["depths"][0])[24, 24] * DEPTH_UNIT == pytest.approx(3.0115 - RADIUS, abs=0.1)


def test_loose_files_become_splats_and_meshes(run: Path, tmp_path: Path) -> None:
    shutil.copy(run / "files/a.red.ply", tmp_path / "red.ply")
    (tmp_path / "torn.ply").write_bytes((tmp_path / "red.ply").read_bytes()[:2000])
    assets = assets_of_files([str(tmp_path / "red.ply"), str(tmp_path / "torn.ply")])
    assert "torn.ply is cut short" in exported(assets, tmp_path / "splat", format="splat")["torn"]
    splats = np.frombuffer((tmp_path / "splat/red.splat").read_bytes(), np.uint8).reshape(-1, 32)
    assert len(splats) == 1500
    np.testing.assert_allclose(np.linalg.norm(splats[:, :12].copy().view("<f4"), axis=1), RADIUS, rtol=1e-5)
    assert (splats[:, 24:27] == (255, 0, 0)).all()
    assert list(exported(assets, tmp_path / "glb", format="glb", mesh=MeshConfig(resolution=32))) == ["torn"]
    mesh = trimesh.load(tmp_path / "glb/red.glb", force="mesh")
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    assert mesh.is_watertight
    assert mesh.bounds.max() == pytest.approx(RADIUS, abs=0.1)


def test_files_say_where_they_come_from_and_how_large_they_are(run: Path, tmp_path: Path) -> None:
    assets = [row for row in assets_of_run(open_read_only(str(run))) if row["prompt_id"] in ("a.red", "blue")]
    mesh = MeshConfig(resolution=32, texture=0)
    assert exported(assets, tmp_path / "glb", format="glb", mesh=mesh, lods=(0.5,)) == {}
    wanted = {
        "prompt_id": "blue",
        "prompt": "a blue ball",
        "seed": 3,
        "license": "mit AND openrail++",
        "models": {"video": {"model": "svd", "revision": "sha256:1", "license": "mit + openrail++"}},
        "generator": "im3d-factory",
    }
    extras = {name: Glb.parse((tmp_path / f"glb/{name}.glb").read_bytes()).tree["asset"]["extras"] for name in IDS}
    assert extras["blue"] == wanted | {"unit": "metre", "size_metres": 0.25}
    assert extras["a.red"]["unit"] == "unit sphere"
    assert trimesh.load(tmp_path / "glb/blue.glb").extents.max() == pytest.approx(0.25, rel=1e-4)
    assert trimesh.load(tmp_path / "glb/a.red.glb").extents.max() == pytest.approx(2 * RADIUS, abs=0.25)
    assert exported(assets, tmp_path / "usdz", format="usdz", mesh=mesh, size_metres=2.0) == {}
    stage = tinyusdz.load(str(tmp_path / "usdz/a.red.usdz"))
    (part,) = tinyusdz.tydra.convert_to_render_scene(stage).meshes()
    assert np.ptp(np.asarray(part.points).reshape(-1, 3), axis=0).max() == pytest.approx(2.0, rel=1e-4)
    assert exported(assets, tmp_path / "ply", format="ply") == {}
    data, before = (tmp_path / "ply/blue.ply").read_bytes(), (run / "files/blue.ply").read_bytes()
    comments = [
        line[13:].split(" ", 1) for line in data.decode("latin-1").splitlines() if line.startswith("comment im3d")
    ]
    assert {name: json.loads(text) for name, text in comments} == wanted
    assert data.endswith(before[before.index(b"end_header") :])
    assert exported(assets, tmp_path / "colmap", format="colmap") == {}
    assert json.loads((tmp_path / "colmap/blue/provenance.json").read_text()) == wanted


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--ply", "a.ply", "--format", "splat-lod"], "give --lods, such as --lods 0.5 0.25"),
        (["--ply", "a.ply", "--format", "glb", "--lods", "0.25", "0.5"], "give falling shares in (0, 1)"),
        (["--ply", "a.ply", "--format", "usd", "--size-metres", "-1"], "size_metres is -1.0; it must be a length > 0"),
        (["--run", "{folder}/none", "--format", "ply"], "holds no assets"),
        (["--ply", "{folder}/a b.ply", "--format", "ply"], "'a b' is not allowed"),
        (["--ply", "x/a.ply", "y/a.ply", "--format", "ply"], "another file is called 'a' too"),
        (["--ply", "a.ply", "--format", "sog", "--splat-transform", "no-such-program"], "npm install -g @playcanvas"),
    ],
)
def test_mistakes_are_one_sentence_before_any_work(tmp_path: Path, capsys, flags: list[str], message: str) -> None:
    arguments = [flag.format(folder=tmp_path) for flag in flags]
    assert export.main([*arguments, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
