"""Work of an evaluation: assets of any folder stream in slices, what is scored is left out, images bound a slice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.score_columns import clip_columns
from factory.config.settings import FactoryConfig, run_settings
from factory.evaluation import line
from factory.evaluation.line import SCORE_DEAD_LETTERS, SCORE_LINE, slices, views_of_run
from factory.evaluation.score_tables import Scores, summaries
from factory.ledger import run_identity
from factory.ledger.commit_protocol import commit
from factory.ledger.ledger import SCORES, Ledger
from factory.prompts.foreign_folder import assets_of_folder
from factory.stages.view_plans import as_column
from factory.storage.local import LocalStore
from model.config import ImageConfig
from model.views import latent_views
from recon.config import OrbitConfig


def rows(count: int, image: bytes | None = None) -> list[dict]:
    return [{"prompt_id": f"p{k}", "prompt": f"a {k}", "image": image} for k in range(count)]


def test_slices_leave_out_what_has_an_outcome_and_end_by_rows_and_bytes(tmp_path: Path, monkeypatch) -> None:
    store = LocalStore(str(tmp_path))
    commit(store, dict.fromkeys(SCORE_DEAD_LETTERS.names) | {"prompt_id": "p1", "error_stage": "x"}, SCORE_DEAD_LETTERS)
    ledger = Ledger(store, SCORES)
    assert [work.assets.num_rows for work in slices(rows(1000), ledger, 300)] == [255, 256, 256, 232]
    works = list(slices(rows(7), ledger, 4))
    assert [list(work.ids) for work in works] == [["p0", "p2", "p3"], ["p4", "p5", "p6"]]
    taken = works[1].table([2, 0], attempt=3)
    assert taken.schema == SCORE_LINE
    assert taken.select(["prompt_id", "prompt", "attempt"]).to_pylist() == [
        {"prompt_id": "p6", "prompt": "a 6", "attempt": 3},
        {"prompt_id": "p4", "prompt": "a 4", "attempt": 3},
    ]
    letter, schema = works[0].killed(1, {"error_type": "Died", "attempt": 2})
    assert (letter["prompt_id"], letter["error_type"], letter["attempt"]) == ("p2", "Died", 2)
    assert schema == SCORE_DEAD_LETTERS
    assert list(slices(rows(2), ledger)) != []
    assert list(slices(rows(2)[1:], ledger)) == []
    monkeypatch.setattr(line, "BYTES_AT_ONCE", 100_000)
    assert [work.assets.num_rows for work in slices(rows(300, bytes(1000)), ledger)] == [127, 128, 44]


def test_a_folder_beside_a_table_of_prompts(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("a.mp4", "a.PLY", "b.glb", "stray.ply", "blind.mp4", "notes.txt"):
        (folder / name).write_bytes(b"")
    Image.new("RGB", (4, 4), "red").save(tmp_path / "red.png")
    table = [{"prompt_id": name, "prompt": f"an {name}", "image": image}
             for name, image in (("a", "red.png"), ("b", None), ("gone", None), ("blind", "black.png"))]  # fmt: skip
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, table)))
    found = {row["prompt_id"]: row for row in assets_of_folder(str(folder), str(tmp_path / "t.jsonl"))}
    assert sorted(found) == ["a", "b", "blind", "gone", "stray"]
    assert (found["a"]["frames_path"], found["a"]["model_path"]) == ("a.mp4", "a.PLY")
    assert found["a"]["image"] == (tmp_path / "red.png").read_bytes()
    assert "frames_path" not in found["gone"]
    assert found["stray"]["prompt"] is None
    assert "black.png" in found["blind"]["error"]
    with pytest.raises(ValueError, match="is no folder"):
        list(assets_of_folder(str(tmp_path / "nowhere"), str(tmp_path / "t.jsonl")))


def test_a_run_says_its_views_itself(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    assert views_of_run(store) == {}
    config = FactoryConfig(image=ImageConfig(size=64), orbit=OrbitConfig(num_views=8, fov_degrees=50.0))
    run_identity.write(store, run_settings(config), None)
    assert views_of_run(store) == {"num_views": 8, "fov_degrees": 50.0, "distance": 3.0115, "size": 64}
    plan = as_column(latent_views(85, fov_degrees=33.8, distance=3.8, size=96))
    seen = {"num_views": 21, "fov_degrees": 33.8, "distance": 3.8, "size": 96}
    assert views_of_run(store, {"view_plan": plan}) == seen
    assert views_of_run(store, {"view_plan": plan | {"size": None}}) == seen | {"size": 64}
    assert views_of_run(store, {"view_plan": None}) == views_of_run(store)


def test_r_precision_counts_prompts_once() -> None:
    ranks = np.array([0.0, 5.0, 7.0, np.nan])
    scores = Scores(prompts=np.array([1, 1, 2, 3], np.uint64), values={"rank_text_frames_m": ranks})
    scores.values |= dict.fromkeys(["rank_text_renders_m", *clip_columns("m")], np.full(4, np.nan))
    (found,) = summaries(scores, ["m"], []).values()
    assert {name: found[name] for name in ("count", "at_1", "at_5", "at_10")} == {
        "count": 2, "at_1": 25, "at_5": 25, "at_10": 100,
    }  # fmt: skip
    assert (found["at_1_low"], found["at_1_high"]) == (0, 50)
