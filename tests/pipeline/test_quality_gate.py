"""Assets that the check finds unusable: kept apart, made again with other seeds, and settled once."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from factory.prompts.next_seeds import seed_of_try
from jobs import check, generate
from recon.config import QualityConfig
from recon.ply import read_ply
from recon.risk import RiskModel
from recon.user_error import UserError

pytestmark = pytest.mark.timeout(600)
CHEAP = ["--image.steps", "1", "--video.steps", "1", "--fit.iterations", "10", "--fit.num-points", "500"]
CHEAP += ["--refine.rounds-at", "--views.elevation", "0.3", "--files.turntable-frames", "16"]
CHEAP += ["--line.runner", "inprocess"]


def table(out: Path, folder: str) -> dict[str, dict[str, Any]]:
    rows = [row for part in (out / folder).glob("*.parquet") for row in pq.read_table(part).to_pylist()]
    assert len({row["prompt_id"] for row in rows}) == len(rows)
    return {row["prompt_id"]: row for row in rows}


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    rows = [{"prompt_id": name, "prompt": f"a red {name}", "seed": seed} for name, seed in (("cup", 4), ("car", 7))]
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return ["--prompts", str(tmp_path / "prompts.jsonl"), "--out", str(tmp_path / "out"), *CHEAP]


def judge_by(monkeypatch: pytest.MonkeyPatch, risks: list[float]) -> None:
    """The check says these, one asset after the other."""
    left = iter(risks)
    monkeypatch.setattr(RiskModel, "probability", lambda *_: next(left))
    monkeypatch.setattr(RiskModel, "reasons", lambda *_: ["it is flat"])


def test_every_asset_is_judged_and_none_rejected_unless_asked_for(flags: list[str], tmp_path: Path) -> None:
    assert generate.main(flags) == 0
    rows = table(tmp_path / "out", "assets")
    assert rows.keys() == {"cup", "car"}
    for row in rows.values():
        assert 0 <= row["usable"] <= 1
        assert isinstance(row["quality_reasons"], list)
        assert row["quality_outside"] >= 0
        assert 0 < row["quality_unlike"] < 2
    assert not (tmp_path / "out" / "rejected").exists()


def test_rejected_prompts_take_other_seeds_and_are_settled_once(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, out = ["--quality.min", "0.5", "--quality.retries", "2"], tmp_path / "out"
    judge_by(monkeypatch, [0.9, 0.8, 0.2, 0.7, 0.6])  # cup, car; cup again, car again; car for the third time
    assert generate.main([*flags, *gate]) == 1
    (asset,), (letter,) = table(out, "assets").values(), table(out, "dead_letters").values()
    assert (asset["prompt_id"], asset["seed"], asset["usable"]) == ("cup", seed_of_try(4, 1), 0.8)
    assert (letter["prompt_id"], letter["seed"], letter["error_type"]) == ("car", seed_of_try(7, 2), "Rejected")
    message = r"usable 0.40 is below quality.min 0.5 (it is flat); kept in rejected/car-"
    assert letter["error_message"].startswith(message)
    kept = sorted((out / "rejected").iterdir())
    assert [folder.name.partition("-")[0] for folder in kept] == ["car", "car", "car", "cup"]
    for folder in kept:
        about = json.loads((folder / "asset.json").read_text())
        assert about["quality_reasons"] == ["it is flat"]
        assert len(read_ply(folder / "asset.ply").means) > 0
    assert check.main(["--out", str(out)]) == 0

    judge_by(monkeypatch, [])  # nothing is made again
    assert generate.main([*flags, *gate]) == 1
    assert sorted((out / "rejected").iterdir()) == kept


def test_a_run_that_was_stopped_between_two_tries_goes_on(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    judge_by(monkeypatch, [0.9, 0.1])
    assert generate.main([*flags, "--quality.min", "0.5"]) == 1
    judge_by(monkeypatch, [0.3])
    more = ["--quality.min", "0.5", "--quality.retries", "1", "--accept-changes"]
    assert generate.main([*flags, *more]) == 0
    rows = table(out, "assets")
    assert {name: row["seed"] for name, row in rows.items()} == {"cup": seed_of_try(4, 1), "car": 7}
    assert {network["name"] for network in rows["cup"]["networks"]} >= {"image", "video", "recon", "judge"}
    assert table(out, "dead_letters") == {}


def test_rejected_assets_do_not_stop_a_run_as_failures_do(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("factory.line.tally.MIN_ROWS_TO_JUDGE", 1)
    judge_by(monkeypatch, [0.9, 0.9])
    assert generate.main([*flags, "--quality.min", "0.5"]) == 1
    assert len(table(tmp_path / "out", "dead_letters")) == 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"min": 1.0}, r"quality.min is 1.0, .* give \[0, 1\)"),
        ({"min": 0.5, "retries": 11}, r"retries 11; give .* 0\.\.10"),
        ({"retries": 2}, "retries need a quality.min above 0"),
        ({"min": 0.5, "enabled": False}, "needs quality.enabled"),
    ],
)
def test_settings_that_contradict_each_other(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        QualityConfig(**given)
