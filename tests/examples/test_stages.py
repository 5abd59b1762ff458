"""The examples of stages of others, through the command and on rows of their own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from examples.stages.visual_hull import ELEVATION_RADIANS, NUM_POINTS
from examples.stages.whole import Whole
from factory.ledger.ledger import ASSETS, DEAD, Ledger
from factory.ledger.schemas import LINE, empty_row, pack
from factory.stages.columns import IMAGE
from factory.storage.store import open_store
from jobs import generate

ROOT = Path(__file__).parents[2]
CHAIN = "image,examples.stages.whole:Whole,examples.stages.visual_hull:VisualHull,score,commit"


def picture(size: int, centre: tuple[int, int], half: int) -> np.ndarray:
    """A red square over white, uint8 [size,size,4]."""
    pixels = np.full((size, size, 4), 255, np.uint8)
    pixels[..., 3] = 0
    x, y = centre
    pixels[max(0, y - half) : y + half, max(0, x - half) : x + half] = (200, 30, 30, 255)
    return pixels


def test_whole_drops_what_is_cut_off_or_hardly_there_with_a_reason() -> None:
    pictures = [picture(64, (32, 32), 20), picture(64, (4, 32), 30), picture(64, (32, 32), 2)]
    rows = [empty_row(prompt_id=str(k), prompt="x") | {"image": pack(image)} for k, image in enumerate(pictures)]
    whole, cut, tiny = Whole(None)(pa.Table.from_pylist(rows, schema=LINE.append(IMAGE))).to_pylist()
    assert whole["error_stage"] is None
    assert whole["object_share"] == pytest.approx((40 / 64) ** 2)
    assert (cut["error_stage"], cut["error_type"]) == ("whole", "dropped")
    assert "of the image's edges" in cut["error_message"]
    assert "covers 0.4% of the image" in tiny["error_message"]


def test_a_chain_of_others_runs_from_prompts_to_assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    wire = picture(64, (32, 32), 0)
    wire[32, 2:62] = (0, 0, 0, 255)
    for name, pixels in (("square", picture(64, (32, 32), 16)), ("wire", wire)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    table = tmp_path / "prompts.jsonl"
    rows = [{"id": "cup", "prompt": "a red cup"}]
    rows += [{"id": name, "prompt": "", "image": f"{name}.png"} for name in ("square", "wire")]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = ["--prompts", str(table), "--out", str(tmp_path / "out"), "--chain", CHAIN, "--image.size", "64"]
    flags += ["--image.steps", "2", "--files.turntable-frames", "16", "--line.max-failed-share", "1"]
    code = generate.main(flags)
    ledger = Ledger(open_store(str(tmp_path / "out")))
    assets = {row["prompt_id"]: row for row in ledger.rows(ASSETS)}
    letters = {row["prompt_id"]: row for row in ledger.rows(DEAD)}
    assert (code, sorted(assets), sorted(letters)) == (1, ["cup", "square"], ["wire"]), letters
    assert (letters["wire"]["error_stage"], letters["wire"]["error_type"]) == ("whole", "dropped")
    given = assets["square"]
    assert (given["elevation"], given["num_gaussians"]) == (ELEVATION_RADIANS, NUM_POINTS)
    assert given["generated"] is None
    assert given["seconds_hull"] > 0
    assert {name for name in given if name.startswith("clip_image")} == {"clip_image_renders_pocket"}
    files = tmp_path / "out" / given["ply"]["path"]
    assert (files.parent / "turntable.mp4").is_file()
    view = np.asarray(Image.open(files.parent / "views" / "00.png"))
    inside = view[..., 3] > 127
    assert 0.1 < inside.mean() < 0.6
    assert view[inside][:, 0].mean() > 2 * view[inside][:, 1].mean(), "the front view is red, as the picture"
    page = (tmp_path / "out" / "index.html").read_text()
    assert all(name in page for name in ("hull ", "whole "))
    assert "generated frames" not in page
