"""Which assets are trained on: scores, decision, pictures, and that training heeds it."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from eval.clip import Scorer
from factory.storage.local import LocalStore
from factory.training.curate.choice import Verdict, choose
from factory.training.curate.page import CAPTION
from factory.training.curate.settings import CurateConfig
from factory.training.curate.stages import JudgeGroup
from factory.training.shards.draw_order import Shards
from factory.training.shards.index import read_index
from jobs.curate import main
from model.captioner import CaptionerConfig

CAPTIONS = {"box-0": "a red box", "ball-1": "a blue ball", "box-2": "a fish", "ball-3": ""}
VIEWS = ["--views", "4"]
ALONE = ["--runner", "inprocess"]


def written(folder: Path, shards_writer) -> Path:
    return shards_writer(shards_writer(folder, CAPTIONS), {"ball-9": "a green ball"}, split="val")


@pytest.fixture
def shards(tmp_path: Path, shards_writer) -> Path:
    return written(tmp_path / "shards", shards_writer)


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory, shards_writer) -> Path:
    """Shards whose assets have scores of four views a turntable."""
    folder = written(tmp_path_factory.mktemp("judged"), shards_writer)
    assert main(["--shards", str(folder), "--best", "1", *VIEWS]) == 0
    return folder


def test_the_best_are_kept_and_trained_on(judged: Path, capsys):
    assert main(["--shards", str(judged), "--best", "2", *VIEWS]) == 0
    assert "2 of 4 training assets kept by pocket, and all 1 for validation" in capsys.readouterr().out
    rows = {row["asset_id"]: row for row in pq.read_table(judged / "curated.parquet").to_pylist()}
    scores = {asset: row["clip_text_pocket"] for asset, row in rows.items() if asset != "ball-9"}
    best = set(sorted(scores, key=lambda asset: -scores[asset])[:2])
    assert {asset for asset, row in rows.items() if row["kept"]} == best | {"ball-9"}
    assert {asset for asset, row in rows.items() if row["split"] == "val"} == {"ball-9"}
    assert set(read_index(str(judged), "train").captions) == best
    assert set(read_index(str(judged), None, only_kept=False).captions) == {*CAPTIONS, "ball-9"}
    assert "2 training assets kept" in (judged / "curated.html").read_text()
    assert np.asarray(Image.open(judged / "histogram.png")).std() > 0
    assert Image.open(judged / "kept.png").size == (8 * 96, 96 + CAPTION)


def test_scores_are_the_means_of_views_over_white(judged: Path):
    index, turntables = read_index(str(judged), None, only_kept=False), Shards(LocalStore(str(judged)), print)
    scorer = Scorer.load("pocket")
    for row in pq.read_table(judged / "curated.parquet").to_pylist():
        chunk = next(chunk for chunk in index.chunks if row["asset_id"] in chunk.key)
        found = [turntables.turntable(chunk, number) for number in (0, 1)]
        views = [turntable.frame(k)[..., :3] for turntable in found if turntable for k in (0, 4, 8, 12)]
        expected = scorer.text_similarity(views, [row["caption"]] * 8).mean().item()
        assert row["clip_text_pocket"] == pytest.approx(expected, abs=1e-3)


def test_another_choice_judges_nothing_anew_and_new_shards_only(judged: Path, shards_writer, capsys):
    assert main(["--shards", str(judged / "renders"), "--best", "4", *VIEWS]) == 0
    assert "row groups to" not in capsys.readouterr().out
    assert set(read_index(str(judged), "train").captions) == set(CAPTIONS)
    shards_writer(judged, {"box-7": "a red box"})
    assert read_index(str(judged), "train").unjudged == 1
    assert main(["--shards", str(judged), "--best", "5", *VIEWS]) == 0
    assert f"1 of 6 row groups to {JudgeGroup.name}" in capsys.readouterr().out
    index = read_index(str(judged), "train")
    assert "box-7" in index.captions
    assert index.unjudged == 0


def test_a_choice_of_nothing_is_refused(judged: Path, capsys):
    assert main(["--shards", str(judged), "--threshold", "1000", *VIEWS]) == 2
    assert "threshold 1000.0 keeps none of " in capsys.readouterr().err
    with pytest.raises(ValueError, match="finite"):
        CurateConfig(threshold=float("nan"))
    with pytest.raises(ValueError, match="no picture"):
        choose([], CurateConfig(best=1))


def test_what_cannot_be_read_is_named_and_looked_at_again(shards: Path, capsys):
    part, broken = (shards / "renders" / f"part-{asset}-32.parquet" for asset in ("box-2", "ball-1"))
    sound = {place: place.read_bytes() for place in (part, broken)}
    rows = pq.read_table(part).to_pylist()
    rows[1]["frames"][0]["bytes"] = b"no picture"
    pq.write_table(pa.Table.from_pylist(rows), part)
    data, group = bytearray(sound[broken]), pq.ParquetFile(broken).metadata.row_group(0)
    pages = [group.column(i) for i in range(group.num_columns) if "bytes" in group.column(i).path_in_schema]
    for page in pages:
        first = page.dictionary_page_offset or page.data_page_offset
        data[first : first + page.total_compressed_size] = bytes(page.total_compressed_size)
    broken.write_bytes(bytes(data))
    assert main(["--shards", str(shards), "--best", "4", *ALONE]) == 0
    out = capsys.readouterr().out
    assert "not readable: renders/part-box-2-32.parquet row group 0 row 1" in out
    assert "not readable: renders/part-ball-1-32.parquet" in out
    assert "3 of 3 training assets kept" in out
    for place, whole in sound.items():
        place.write_bytes(whole)
    assert main(["--shards", str(shards), "--best", "4", *ALONE]) == 0
    out = capsys.readouterr().out
    assert "not readable" not in out
    assert "4 of 4 training assets kept" in out


def test_captions_are_made_where_there_are_none_and_trained_on(shards: Path, tiny_captioner: Path, capsys):
    flags = ["--shards", str(shards), "--best", "4", "--captioner.model", str(tiny_captioner), *ALONE]
    assert main(flags) == 0
    assert "1 of 5 assets captioned by" in capsys.readouterr().out
    index = read_index(str(shards), None)
    made = index.captions["ball-3"]
    assert made
    assert set(made.split()) <= {"a", "red", "blue", "box", "ball"}
    assert {asset: index.captions[asset] for asset in CAPTIONS if asset != "ball-3"} == {
        asset: caption for asset, caption in CAPTIONS.items() if caption
    }
    chunk = next(chunk for chunk in index.chunks if "ball-3" in chunk.key)
    turntable = Shards(LocalStore(str(shards)), print, index.captions).turntable(chunk, 0)
    assert turntable is not None
    assert turntable.caption == made
    assert main([*flags, "--captioner.replace"]) == 0
    assert "5 of 5 assets captioned by" in capsys.readouterr().out


def verdicts_of(*scores: float, split: str = "train") -> list[Verdict]:
    return [Verdict(asset_id=f"{split}-{score}", caption="x", score=score, split=split) for score in scores]


def test_best_and_threshold_together_choose_training_assets():
    verdicts = verdicts_of(9.0, 5.0, 1.0)
    choose(verdicts, CurateConfig(best=2, threshold=6))
    assert [verdict.kept for verdict in verdicts] == [True, False, False]
    choose(verdicts, CurateConfig(threshold=5))
    assert [verdict.kept for verdict in verdicts] == [True, True, False]
    verdicts = [*verdicts_of(9.5, split="val"), *verdicts, *verdicts_of(0.5, split="val")]
    choose(verdicts, CurateConfig(best=1))
    assert [verdict.kept for verdict in verdicts] == [True, True, False, False, True]


def test_what_cannot_be_judged_is_refused(tmp_path: Path, shards_writer, capsys):
    (tmp_path / "empty").mkdir()
    mute = shards_writer(tmp_path / "mute", {"box-0": ""})
    for arguments, message in [
        (["--shards", str(mute)], "give --best N or --threshold"),
        (["--shards", str(tmp_path / "empty"), "--best", "1"], "make some with `im3d render`"),
        (["--shards", str(mute), "--best", "1"], "has no captions to compare with"),
        (["--shards", str(mute), "--best", "0"], "best is 0; it must be at least 1"),
        (
            ["--shards", str(mute), "--best", "1", "--captioner.model", str(tmp_path)],
            "give the path of a downloaded one",
        ),
    ]:
        assert main(arguments) == 2
        assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"needs a captioner\.model"):
        CaptionerConfig(replace=True)
