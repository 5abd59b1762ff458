"""Meshes to turntables: what is written can be trained on, and bad meshes cost only themselves."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
import trimesh
from PIL import Image

from factory.prompts.assets import read_assets, split_of
from factory.training.render.line import RenderWork, drawn, rows_per_part
from factory.training.render.settings import RenderConfig
from factory.training.shards.index import read_index
from jobs import render
from recon.cameras import turntable
from tests.recon.meshes.gltf_writer import Gltf

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module", autouse=True)
def _cluster():
    yield
    ray.shutdown()


def table(folder: Path) -> Path:
    """Three good meshes and four bad ones."""
    folder.mkdir()
    for name, colour in (("red", (255, 0, 0, 255)), ("green", (0, 255, 0, 255)), ("blue", (0, 0, 255, 255))):
        box = trimesh.creation.box((1.0, 0.4, 0.6))
        box.visual.vertex_colors = colour
        (folder / f"{name}.glb").write_bytes(box.export(file_type="glb"))
    (folder / "broken.glb").write_bytes(b"glTF" + b"\0" * 40)
    rows = [
        {"id": n, "path": f"{n}.glb", "caption": f"a {n} box", "license": "CC0-1.0"} for n in ("red", "green", "blue")
    ]
    clear = Gltf()
    clear.draw(clear.quad(clear.material([1, 1, 1, 0], alphaMode="BLEND")))
    (folder / "clear.glb").write_bytes(clear.glb())
    rows += [
        {"id": "broken", "path": "broken.glb"},
        {"id": "clear", "path": "clear.glb"},
        {"id": "gone", "path": "gone.glb"},
        {"id": "out", "path": "../x.glb"},
    ]
    (folder / "assets.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder / "assets.jsonl"


def pixels(frame: dict) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(frame["bytes"])))


def test_meshes_become_turntables_with_cameras(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assets, out = table(tmp_path / "assets"), tmp_path / "out"
    flags = ["--assets", str(assets), "--out", str(out), "--size", "48", "--turntables", "2", "--runner", "inprocess"]
    assert render.main([*flags, "--limit", "2"]) == 0
    assert render.main(flags) == 1
    rows = {r["turntable_id"]: r for p in (out / "renders").glob("*.parquet") for r in pq.read_table(p).to_pylist()}
    assert sorted(rows) == [f"{n}.{k}" for n in ("blue", "green", "red") for k in (0, 1)]
    for name, row in rows.items():
        channel = ["red", "green", "blue"].index(row["asset_id"])
        frames = np.stack([pixels(frame) for frame in row["frames"]])
        assert frames.shape == (16, 48, 48, 4)
        inside = frames[frames[..., 3] == 255]
        assert (inside[:, channel] > 60).all()
        assert (np.delete(inside[:, :3], channel, 1) < 10).all()
        assert 0 <= row["elevation"] <= math.pi / 4
        assert (row["caption"], row["license"]) == (f"a {row['asset_id']} box", "CC0-1.0")
        expected = turntable(row["elevation"], 48).viewmats.flatten(1)
        np.testing.assert_allclose(row["viewmats"], expected, atol=1e-6)
        assert name.startswith(row["asset_id"])
    assert rows["red.0"]["elevation"] != rows["red.1"]["elevation"]
    dead = [r for p in (out / "dead_letters").glob("*.parquet") for r in pq.read_table(p).to_pylist()]
    assert sorted(r["turntable_id"] for r in dead) == [
        f"{n}.{k}" for n in ("broken", "clear", "gone", "out") for k in (0, 1)
    ]
    assert {r["error_stage"] for r in dead} == {"render"}
    reasons = {r["asset_id"]: r["error_message"] for r in dead}
    assert "cannot read this glb: it is GLB 0" in reasons["broken"]
    assert "nothing of the asset is seen in any of 16 views" in reasons["clear"]
    (tmp_path / "assets" / "broken.glb").write_bytes((tmp_path / "assets" / "red.glb").read_bytes())
    assert render.main(flags) == 1
    assert "8 of 14 turntables to render" in capsys.readouterr().out
    assert render.main([*flags, "--limit", "4"]) == 0
    assert "Nothing to do" in capsys.readouterr().out
    assert render.main([*flags, "--seed", "5"]) == 2
    assert "was made with seed 0, now 5: choose another --out" in capsys.readouterr().err


def test_objects_put_together_are_assets_of_their_own(tmp_path: Path) -> None:
    out = tmp_path / "out"
    flags = ["--assets", str(table(tmp_path / "assets")), "--out", str(out), "--size", "32", "--assemblies", "1"]
    assert render.main([*flags, "--limit", "1", "--pool.actors", "1"]) == 0
    index = read_index(str(out), None)
    assert index.captions == {"red.assembly": "a thing"}
    (row,) = pq.read_table(next((out / "renders").glob("*.parquet"))).to_pylist()
    assert (row["turntable_id"], row["split"]) == ("red.0", split_of("red"))


def test_shards_of_large_frames_hold_fewer_turntables() -> None:
    assert [rows_per_part(size) for size in (64, 128, 256, 512, 2048)] == [256, 256, 64, 16, 16]


def test_views_depend_on_seed_and_id_only() -> None:
    config = RenderConfig()
    assert drawn("a.0", config)[:2] == drawn("a.0", RenderConfig(size=64))[:2]
    assert drawn("a.0", config)[:2] != drawn("a.1", config)[:2] != drawn("a.1", RenderConfig(seed=1))[:2]
    assert drawn("a.0", config)[2].idle
    factors = np.stack([drawn(f"{n}.0", RenderConfig(stretch=2.0))[2].factors for n in range(200)])
    assert 0.5 <= factors.min() < 0.55
    assert 1.8 < factors.max() <= 2
    assert drawn("a.0", config)[1] == 0.0
    starts = [drawn(f"{n}.0", RenderConfig(random_start=True))[1] for n in range(200)]
    elevations = [drawn(f"{n}.0", config)[0] for n in range(200)]
    assert 0 <= min(starts) < 0.3 < 6.0 < max(starts) < 2 * math.pi
    assert 0 <= min(elevations) < 0.05 < 0.74 < max(elevations) <= math.pi / 4


def test_companions_are_other_usable_assets_in_their_share() -> None:
    assets = [{"asset_id": n, "path": f"{n}.glb", "error": "broken" if n == "c" else None} for n in "abc"]
    config = RenderConfig(turntables=200, companions=0.5)
    rows = [RenderWork(assets=assets, config=config).row(number, 1) for number in range(600)]
    companions = {name: [r["companion"] for r in rows if r["asset_id"] == name] for name in "abc"}
    assert set(companions["a"]) == {None, "b.glb"}
    assert set(companions["b"]) == {None, "a.glb"}
    assert 0.1 < np.mean([path is not None for path in companions["a"]]) < 0.25
    alone = RenderWork(assets=assets, config=RenderConfig(turntables=2))
    assert {alone.row(number, 1)["companion"] for number in range(6)} == {None}


def test_tables_of_assets_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": "a", "path": "a.glb", "split": "val"}\n{"id": "a/b", "path": "b.glb"}\nnot json\n')
    assert [row["asset_id"] for row in read_assets(str(path), split="val")] == ["a"]
    work = RenderWork(assets=read_assets(str(path)), config=RenderConfig())
    assert [row["error_stage"] for row in work.unusable()] == ["assets", "assets"]
    path.write_text('{"id": "a", "path": "a.glb"}\n{"id": "a", "path": "b.glb"}')
    with pytest.raises(ValueError, match="row 2: id 'a' repeats"):
        read_assets(str(path))
    path.write_text('{"id": "a"}')
    with pytest.raises(ValueError, match="no column 'path'"):
        read_assets(str(path))
    path.write_text("")
    with pytest.raises(ValueError, match="no assets"):
        read_assets(str(path))
