"""`im3d check`: what is damaged is named, and made again."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs import check, generate

pytestmark = pytest.mark.timeout(600)
CHEAP = ["--line.runner", "inprocess", "--image.steps", "1", "--video.steps", "1", "--fit.iterations", "2"]
CHEAP += ["--refine.rounds-at", "1", "--fit.init", "ball", "--views.elevation", "0.3", "--files.turntable-frames", "16"]


def test_a_run_is_checked_and_repaired(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt_id": name, "prompt": f"a red {name}"} for name in ("cup", "box")]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    out = tmp_path / "out"
    assert generate.main(["--prompts", str(tmp_path / "p.jsonl"), "--out", str(out), *CHEAP]) == 0
    flags = ["--out", str(out)]
    assert check.main(flags) == 0
    assert "2 assets, " in (told := capsys.readouterr().out)
    assert "all whole" in told

    (part,) = (out / "assets").glob("part-*.parquet")
    row = next(row for row in pq.read_table(part).to_pylist() if row["prompt_id"] == "cup")
    ply, video = out / row["ply"]["path"], out / row["turntable"]["path"]
    ply.write_bytes(ply.read_bytes()[:-4] + b"abcd")
    video.unlink()
    (out / "files/orphan/x.bin").parent.mkdir()
    (out / "files/orphan/x.bin").write_bytes(bytes(1000))
    (out / "assets/notes.txt").write_text("stray")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert check.main(flags) == 1
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before  # only looked at
    told = capsys.readouterr().out
    assert f"{row['ply']['path']} has changed: its SHA-256 differs" in told
    assert f"{row['turntable']['path']} is missing" in told
    assert "1 files (0.0 MB) belong to no row" in told
    assert "passed over: assets/notes.txt" in told
    assert "--repair makes what is missing again" in told

    assert check.main([*flags, "--repair"]) == 0
    assert "1 rows forgotten" in capsys.readouterr().out
    assert video.exists()

    data = bytearray(part.read_bytes())
    data[len(data) // 3] ^= 0xFF
    part.write_bytes(data)
    assert check.main(flags) == 1
    assert "part-000000.parquet is damaged" in capsys.readouterr().out
    assert check.main([*flags, "--repair"]) == 0
    assert "1 tables moved aside" in capsys.readouterr().out

    for part in (out / "assets").glob("part-*.parquet"):
        part.unlink()
    assert check.main(flags) == 0
    assert "a table is lost; --repair makes missing rows again" in capsys.readouterr().out
    assert check.main([*flags, "--repair"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("2 assets, ")


def test_other_folders_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["--out", str(tmp_path)]) == 2
    assert "holds no config.yaml" in capsys.readouterr().err
