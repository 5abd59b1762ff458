"""Calibration of the check of finished assets: on labels of a run, and what is rendered to fail."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.quality_gate import SIZE, VIEWS, Options, ground, main, measures_of, plate
from recon.quality import MEASURES, load_quality_model


def write_run(folder: Path, count: int) -> dict[str, bool]:
    """A run whose unusable assets float in parts, half of them rejected; returns which are usable."""
    random, usable = np.random.default_rng(0), {f"p{k}": bool(k % 2) for k in range(count)}
    rows = [
        {"prompt_id": name, "usable": 0.5}
        | {f"quality_{measure}": float(random.uniform(0.1, 0.2)) for measure in MEASURES}
        | {"quality_floating": float(random.uniform(0.0, 0.02) + 0.3 * (not good)), "quality_unlike": None}
        for name, good in usable.items()
    ]
    (folder / "assets").mkdir(parents=True)
    kept = [row for k, row in enumerate(rows) if k % 4]
    pq.write_table(pa.Table.from_pylist(kept), folder / "assets" / "part-000000.parquet")
    for row in (row for k, row in enumerate(rows) if not k % 4):
        (folder / "rejected" / row["prompt_id"]).mkdir(parents=True)
        (folder / "rejected" / row["prompt_id"] / "asset.json").write_text(json.dumps(row))
    return usable


def test_labels_of_a_run_calibrate_the_model_and_judge_it(tmp_path: Path) -> None:
    usable = write_run(tmp_path / "run", 120)
    assert measures_of(tmp_path / "run").keys() == usable.keys()
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt_id", "usable"])
        writer.writerows([name, int(good)] for name, good in usable.items())
    options = Options(labels=tmp_path / "labels.csv", runs=(tmp_path / "run",), write=tmp_path / "made")
    found = main(options)
    assert found["calibrated_on"] + found["labelled"]["count"] == 120
    assert found["labelled"]["roc_auc"] > 0.99
    model = load_quality_model(tmp_path / "made")
    assert model.reasons({"floating": 0.3}, MEASURES) == ["parts float beside it"]


def test_a_plate_turns_its_one_picture_and_ground_is_covered_and_light() -> None:
    frames = np.full((VIEWS, SIZE, SIZE, 4), 255, np.uint8)
    frames[..., 3] = 0
    frames[:, 40:100, 50:80] = (200, 30, 30, 255)
    widths = (plate(frames)[..., 3] > 0).any(1).sum(1)
    assert widths[0] == widths[VIEWS // 2] == 30
    assert widths[VIEWS // 4] <= 3
    patched = ground(frames, np.random.default_rng(0))
    added = (patched[..., 3] > 0) & (frames[..., 3] == 0)
    assert added.any((1, 2)).all()
    assert patched[added][:, :3].min() >= 225
