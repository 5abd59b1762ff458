"""The paper's tables on outputs of `im3d ablate` and of `im3d evaluate`: a row a variant, a row a run and model."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from factory.evaluation.ablation.settings import AblationConfig
from factory.evaluation.ablation.work import FITS, fits_schema
from factory.evaluation.paper_rows import ablation_rows, rows_beside
from factory.evaluation.score_tables import same_protocol
from factory.ledger.commit_protocol import commit_block
from factory.ledger.ledger import Ledger
from factory.line.output_folder import settle
from factory.storage.interface import StorageConfig
from factory.storage.local import LocalStore
from jobs import evaluate

FITTED = {"full": {"a": 30.0, "b": 20.0}, "no-lpips": {"a": 10.0, "b": 14.0}, "frames-4": {"a": 5.0}}
"""CLIP text by variant and asset; CLIP image is thrice as much."""


@pytest.fixture
def ablation(tmp_path: Path) -> LocalStore:
    store, schema = LocalStore(str(tmp_path / "ablation")), fits_schema("pocket")
    rows = [
        dict.fromkeys(schema.names)
        | {"fit_id": f"{asset}.{variant}", "asset_id": asset, "variant": variant}
        | {"clip_text_pocket": text, "clip_image_pocket": 3 * text}
        for variant, assets in FITTED.items()
        for asset, text in assets.items()
    ]
    commit_block(store, rows, schema)
    Ledger(store, FITS).publish()
    settle(store, AblationConfig(rounds=1).identity())
    return store


def put_evaluation(root: Path, name: str, assets: int | None, mean: float) -> None:
    store = LocalStore(str(root / "evaluations" / name))
    store.put("protocol.json", json.dumps({"views": {"size": 8}}).encode())
    score = {"mean": mean, "std": 1.0}
    scores = {"clip_text_renders_m": score, "clip_image_renders_m": score}
    if assets is not None:
        store.put("summary.json", json.dumps({"assets": assets, "scores": scores, "costs": {}}).encode())


def test_variants_are_rows_beside_the_papers(ablation: LocalStore) -> None:
    full = ((25.0, pytest.approx(50**0.5)), (75.0, pytest.approx(3 * 50**0.5)))
    assert ablation_rows(ablation, 2, "ours") == [
        ("ours: full (n = 2), CLIP pocket", *full),
        ("ours: - LPIPS (n = 2), CLIP pocket", (12.0, pytest.approx(8**0.5)), (36.0, pytest.approx(3 * 8**0.5))),
    ]
    frames = ablation_rows(ablation, 3, "ours")
    assert [row[0] for row in frames] == [
        "ours: 16 frames (full) (n = 2), CLIP pocket",
        "ours: 4 frames, not refined (n = 1), CLIP pocket",
    ]
    assert ablation_rows(ablation, 1, "ours") == []


def test_the_job_prints_and_keeps_the_tables_of_an_ablation(ablation: LocalStore, tmp_path: Path, capsys) -> None:
    assert evaluate.main(["--run", ablation.root, "--table", "2", "3", "--form", "csv", "--label", "pocket"]) == 0
    said = capsys.readouterr().out
    for number, lines in ((2, 6 + 2), (3, 3 + 2)):
        text = ablation.get(f"evaluations/tables/table-{number}.csv").decode()
        assert text in said
        rows = list(csv.reader(text.splitlines()))
        assert len(rows) == 1 + lines
        assert rows[1][1:] == ["31.66 ± 1.7", "91.40 ± 5.5"]
    assert rows[-2][0].startswith("pocket: 16 frames")
    assert rows[-1][1:] == ["5.00", "15.00"]  # one asset has no deviation
    assert evaluate.main(["--run", ablation.root]) == 2
    assert "has Tables 2 and 3; say --table 2 3" in capsys.readouterr().err
    (tmp_path / "run").mkdir()
    assert evaluate.main(["--run", ablation.root, "--table", "2", "--beside", str(tmp_path / "run")]) == 2
    assert "is no output of im3d ablate" in capsys.readouterr().err


def test_other_folders_are_ablations_or_runs_of_one_protocol(ablation: LocalStore, tmp_path: Path) -> None:
    name = "0123456789abcdef"
    put_evaluation(tmp_path / "mine", f"{name}-0000", 3, 1.0)
    put_evaluation(tmp_path / "other", f"{name}-1111", 9, 40.0)
    put_evaluation(tmp_path / "other", f"{name}-2222", 4, 50.0)  # of a smaller run: older
    put_evaluation(tmp_path / "other", f"{name}-3333", None, 60.0)  # never finished
    ours = LocalStore(str(tmp_path / "mine" / "evaluations" / f"{name}-0000"))
    rows = rows_beside([str(tmp_path / "other"), ablation.root], 2, ["m"], ours, StorageConfig())
    assert rows[0] == ("other, CLIP m", (40.0, 1.0), (40.0, 1.0))
    assert [row[0].split(" (")[0] for row in rows[1:]] == ["ablation: full", "ablation: - LPIPS"]
    assert same_protocol(str(tmp_path / "other"), ours, StorageConfig()).root.endswith(f"{name}-1111")
    put_evaluation(tmp_path / "fourth", f"{name}-3333", None, 60.0)
    with pytest.raises(ValueError, match=r"fourth/evaluations/0123456789abcdef-3333 is not finished"):
        rows_beside([str(tmp_path / "fourth")], 2, ["m"], ours, StorageConfig())
    put_evaluation(tmp_path / "third", "fedcba9876543210-0000", 3, 1.0)
    with pytest.raises(ValueError, match="by another protocol"):
        rows_beside([str(tmp_path / "third")], 2, ["m"], ours, StorageConfig())
