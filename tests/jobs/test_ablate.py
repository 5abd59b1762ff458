"""`im3d ablate`: a fit for each asset and variant, judged against the truth; bad assets cost only themselves."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
import trimesh
from PIL import Image

from jobs import ablate

pytestmark = pytest.mark.timeout(300)
SETTINGS = {
    "size": 32, "fit.iterations": 200, "fit.num-points": 300, "fit.device": "cpu",
    "nerf.iterations": 100, "nerf.size": 32, "nerf.resolution": 24, "nerf.samples": 24, "pool.actors": 1,
}  # fmt: skip
FLAGS = [part for name, value in SETTINGS.items() for part in (f"--{name}", str(value))]


@pytest.fixture(scope="module", autouse=True)
def _cluster():
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two good boxes and a file that is no mesh."""
    folder = tmp_path_factory.mktemp("assets")
    for name, colour in (("red", (220, 30, 30, 255)), ("blue", (30, 30, 220, 255))):
        box = trimesh.creation.box((1.0, 0.7, 0.8))
        box.visual.vertex_colors = colour
        (folder / f"{name}.glb").write_bytes(box.export(file_type="glb"))
    (folder / "broken.glb").write_bytes(b"glTF" + b"\0" * 40)
    rows = [{"id": name, "path": f"{name}.glb", "caption": f"a {name} box"} for name in ("red", "blue", "broken")]
    (folder / "assets.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def fits(out: Path) -> dict[str, dict]:
    return {row["fit_id"]: row for part in (out / "fits").glob("*.parquet") for row in pq.read_table(part).to_pylist()}


def test_variants_of_true_views_are_fitted_tabled_and_pictured(assets: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    flags = ["--assets", str(assets), "--out", str(out), "--targets", "true", *FLAGS, "--runner", "inprocess"]
    assert ablate.main([*flags, "--variants", "nerf", "frames-4"]) == 1
    rows = fits(out)
    assert set(rows) == {f"{asset}.{variant}" for asset in ("red", "blue") for variant in ("full", "nerf", "frames-4")}
    for row in rows.values():
        assert row["psnr"] > 12
        assert row["iou"] > 0.6
        assert row["cpu_seconds"] > 0
        assert row["elevation"] == row["elevation_given"]
        assert -100 <= row["clip_text_pocket"] <= 100
        picture = np.asarray(Image.open(io.BytesIO(row["picture"]["bytes"])))
        assert picture.shape == (64, 4 * 32, 3)
        assert np.square(picture[:32].astype(float) - picture[32:]).mean() < 255**2 * 10**-1.2
    assert rows["red.nerf"]["num_gaussians"] is None
    assert rows["red.full"]["num_gaussians"] > 0
    dead = [row for part in (out / "dead_letters").glob("*.parquet") for row in pq.read_table(part).to_pylist()]
    assert {row["fit_id"] for row in dead} == {f"broken.{variant}" for variant in ("full", "nerf", "frames-4")}
    table = (out / "ablation.md").read_text()
    psnr = np.mean([rows[f"{asset}.nerf"]["psnr"] for asset in ("red", "blue")])
    assert f"| w/ NeRF instead of Gaussians | 30.42 ± 2.1 | 87.37 ± 5.4 | 2 | {psnr:.2f} ±" in table
    assert "Fewer frames (Table 3); true targets" in table
    assert "<caption>Loss terms" in (out / "ablation.html").read_text()
    assert Image.open(out / "sheet.png").size == (250 + 2 * 2 * 32, 4 * 32)
    capsys.readouterr()

    assert ablate.main([*flags, "--variants", "nerf", "robust"]) == 1
    assert "5 of 9 fits to make" in capsys.readouterr().out, "two of robust, and three of the broken asset again"
    assert ablate.main([*flags, "--seed", "1"]) == 2
    assert "seed 0, now 1: choose another --out" in capsys.readouterr().err


def test_generated_targets_are_told_the_estimated_elevation_and_refined(assets: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    flags = [*FLAGS, "--size", "128", "--fit.iterations", "6", "--video.steps", "1", "--video.refine-steps", "2"]
    flags += ["--elevation-error-degrees", "10", "--variants", "rounds-1", "--limit", "1"]
    assert ablate.main(["--assets", str(assets / "assets.jsonl"), "--out", str(out), *flags]) == 0
    rows = fits(out)
    assert rows["red.full"]["forwards"] == 0
    assert rows["red.rounds-1"]["forwards"] >= 2
    assert abs(rows["red.full"]["elevation"] - rows["red.full"]["elevation_given"]) > 1e-3
    assert rows["red.full"]["elevation_given"] == rows["red.rounds-1"]["elevation_given"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--assets", "nowhere"], "nowhere/assets.jsonl"),
        (["--assets", "{folder}", "--split", "val"], "no assets of split 'val'"),
        (["--assets", "{folder}", "--variants", "no-lips"], "'no-lips' not found"),
    ],
)
def test_mistakes_are_one_sentence(assets: Path, tmp_path: Path, capsys, flags: list[str], message: str) -> None:
    answer = [flag.format(folder=assets) for flag in flags]
    assert ablate.main([*answer, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err


def test_a_limit_of_nothing_is_refused_before_anything_runs(capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        ablate.main(["--assets", "a", "--out", "o", "--limit", "0"])
    assert stopped.value.code == 2
    assert "limit is 0" in capsys.readouterr().err
