"""Which assets are trained on: scores, decision, pictures, and that training heeds it."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from factory.captions import CaptionerConfig
from factory.curation import CAPTION, CurateConfig, Verdict, choose
from factory.shards import read_index
from factory.store import LocalStore
from factory.stream import Shards
from jobs.curate import main

CAPTIONS = {"box-0": "a red box", "ball-1": "a blue ball", "box-2": "a fish", "ball-3": ""}


@pytest.fixture
def shards(tmp_path: Path, shards_writer) -> Path:
    return shards_writer(tmp_path / "shards", CAPTIONS, split="")


def test_the_best_are_kept_and_trained_on(shards: Path, capsys):
    assert main(["--shards", str(shards), "--best", "2"]) == 0
    assert "2 of 4 assets kept by pocket" in capsys.readouterr().out
    rows = {row["asset_id"]: row for row in pq.read_table(shards / "curated.parquet").to_pylist()}
    scores = {asset: row["clip_text_pocket"] for asset, row in rows.items()}
    best = set(sorted(scores, key=lambda asset: -scores[asset])[:2])
    assert {asset for asset, row in rows.items() if row["kept"]} == best
    assert {row["split"] for row in rows.values()} <= {"train", "val"}
    assert set(read_index(str(shards), None).captions) == best
    assert set(read_index(str(shards), None, heed=False).captions) == set(CAPTIONS)
    assert "2 assets kept" in (shards / "curated.html").read_text()
    assert np.asarray(Image.open(shards / "histogram.png")).std() > 0
    assert Image.open(shards / "kept.png").size == (8 * 96, 96 + CAPTION)
    assert main(["--shards", str(shards / "renders"), "--best", "4"]) == 0
    assert set(read_index(str(shards), None).captions) == set(CAPTIONS)


def test_captions_are_made_where_there_are_none_and_trained_on(shards: Path, tiny_captioner: Path, capsys):
    assert main(["--shards", str(shards), "--best", "4", "--captioner.model", str(tiny_captioner)]) == 0
    assert "1 of 4 assets captioned by" in capsys.readouterr().out
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
    flags = ["--best", "4", "--captioner.model", str(tiny_captioner), "--captioner.replace"]
    assert main(["--shards", str(shards), *flags]) == 0
    assert "4 of 4 assets captioned by" in capsys.readouterr().out


def test_best_and_threshold_together():
    picture = np.zeros((4, 4, 3), np.uint8)
    verdicts = [Verdict(asset_id=str(s), caption="x", score=s, split="train", picture=picture) for s in (9.0, 5.0, 1.0)]
    choose(verdicts, CurateConfig(best=2, threshold=6))
    assert [verdict.kept for verdict in verdicts] == [True, False, False]
    choose(verdicts, CurateConfig(threshold=5))
    assert [verdict.kept for verdict in verdicts] == [True, True, False]


def test_a_choice_of_nothing_is_refused(shards: Path, capsys):
    assert main(["--shards", str(shards), "--threshold", "1000"]) == 2
    assert "threshold 1000.0 keeps none of 4 assets" in capsys.readouterr().err
    with pytest.raises(ValueError, match="finite"):
        CurateConfig(threshold=float("nan"))
    with pytest.raises(ValueError, match="no picture"):
        choose([], CurateConfig(best=1))


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
