"""Which turntables of a folder are trained on, and which folders and rows are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from factory.storage.store import StorageConfig
from factory.training.finetune.prepare import prepare
from factory.training.finetune.settings import WorkersConfig
from factory.training.shards.draw_order import Order, Reader, plain_batches
from factory.training.shards.index import ENCODER, SHAPE, Index, read_index
from model.config import Drawing, TrainConfig

ASSETS = {"box-0": "a red box", "ball-1": "a ball", "box-2": "a box"}


@pytest.fixture
def shards(tmp_path: Path, shards_writer: Any) -> Path:
    return shards_writer(tmp_path / "shards", ASSETS)


def rewrite(path: Path, change: Callable[[list[dict[str, Any]]], Any], schema: pa.Schema | None = None) -> None:
    """Let `change` turn the rows of a shard into others."""
    rows = pq.read_table(path).to_pylist()
    pq.write_table(pa.Table.from_pylist(change(rows), schema=schema), path)


def parts(shards: Path) -> list[Path]:
    return sorted((shards / "renders").iterdir())


def fewer(count: int, *numbers: int) -> Callable[[list[dict[str, Any]]], Any]:
    """Leaves the rows of these numbers, or all, so many frames."""

    def change(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for number in numbers or range(len(rows)):
            rows[number]["frames"] = rows[number]["frames"][:count]
        return rows

    return change


def without_paths(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row | {"frames": [{"bytes": frame["bytes"]} for frame in row["frames"]]} for row in rows]


def drawn(index: Index, drawing: Drawing) -> tuple[list[Any], dict[str, str]]:
    """Six batches of one, and what was noted."""
    notes: dict[str, str] = {}
    stream = plain_batches(Reader(order=Order(index=index, seed=0), drawing=drawing, note=notes.__setitem__), 1)
    return [next(stream) for _ in range(6)], notes


@pytest.mark.parametrize("known", ["paths", "azimuths", "mean"])
def test_numbers_of_views_that_differ_are_refused(shards: Path, known: str) -> None:
    for path in parts(shards):
        rewrite(path, fewer(8) if path == parts(shards)[0] else lambda rows: rows)
        if known != "paths":
            rewrite(path, without_paths)
        if known == "azimuths":
            rewrite(path, lambda rows: [row | {"azimuths": [0.0] * len(row["frames"])} for row in rows])
    with pytest.raises(ValueError, match="mixes turntables of 8, 16 views; render one number into a folder of its own"):
        read_index(str(shards), None)


def test_numbers_of_views_that_differ_within_a_shard_are_refused(shards: Path) -> None:
    rewrite(parts(shards)[0], fewer(8, 1))
    with pytest.raises(ValueError, match="mixes turntables of 8, 16 views"):
        read_index(str(shards), None)


@pytest.mark.parametrize(
    ("target", "views", "reason"),
    [("elevation", 3, "views, and target elevation takes 4 or more; render with --num-views 4"),
     ("temporal", 8, "views, and target temporal takes 16; render with --num-views 16"),
     ("elevation", 6, None), ("mask", 1, None)],
)  # fmt: skip
def test_a_target_has_the_views_that_it_takes(shards, tiny_pocket, target, views, reason) -> None:
    for path in parts(shards):
        rewrite(path, fewer(views))
    places = (str(shards), str(tiny_pocket), str(shards / "out"))

    def prepared() -> Any:
        return prepare(target, *places, "train", TrainConfig(), WorkersConfig(), StorageConfig())

    if reason:
        with pytest.raises(ValueError, match=f"has turntables of {views} {reason}"):
            prepared()
    else:
        run = prepared()
        assert run.index.views == views
        azimuths = next(plain_batches(run.reader(), 2)).azimuths
        steps = torch.rad2deg(azimuths - azimuths[:, :1]).tolist()
        assert steps == [pytest.approx([0, 60, 180, 240] if target == "elevation" else [0], abs=1e-3)] * 2


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [("elevation", None, "elevation is None"), ("elevation", float("nan"), "elevation is nan"),
     ("size", None, "size is None"), ("asset_id", None, "asset_id is None"), ("frames", None, "no frames"),
     ("frames", [], "no frames")],
)  # fmt: skip
def test_a_row_that_cannot_be_used_is_named_and_left_out(shards: Path, column: str, value: Any, reason: str) -> None:
    path = parts(shards)[1]
    kept = pq.read_schema(path)
    rewrite(path, lambda rows: [rows[0], rows[1] | {column: value}], kept)
    index = read_index(str(shards), None)
    assert len(index) == 5
    assert index.quarantined == {f"renders/{path.name}, 1 of its turntables": f"row group 0 row 1: {reason}"}
    for path in parts(shards):
        rewrite(path, lambda rows: [row | {column: value} for row in rows], kept)
    with pytest.raises(ValueError, match=rf"6 of 6 turntables in .* cannot be used \(.*: {reason}\)"):
        read_index(str(shards), None)


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [("caption", 7, "column 'caption' is int64, not text"), ("asset_id", 7, "column 'asset_id' is int64, not text"),
     ("elevation", "0.2", "column 'elevation' is string, not a number"),
     ("size", "32", "column 'size' is string, not a number"), ("frames", "a.png", "column 'frames' is string, not"),
     ("frames", ["a.png"], "column 'frames' is list<element: string>, not a list of images"),
     ("frames", [{"bytes": "a", "path": ""}] * 16, "column 'frames' is list<element: struct<bytes: string")],
)  # fmt: skip
def test_shards_with_columns_of_another_type_are_left_out(shards: Path, column: str, value: Any, reason: str) -> None:
    path = parts(shards)[2]
    rewrite(path, lambda rows: [row | {column: value} for row in rows])
    index = read_index(str(shards), None)
    assert len(index) == 4
    (found,) = index.quarantined.values()
    assert found.startswith(reason)
    for path in parts(shards):
        rewrite(path, lambda rows: [row | {column: value} for row in rows])
    with pytest.raises(ValueError, match=r"3 of 3 shards in .* cannot be used"):
        read_index(str(shards), None)


def test_captions_that_are_missing_or_categories_are_read(shards: Path) -> None:
    rewrite(parts(shards)[0], lambda rows: [row | {"caption": None} for row in rows])
    table = pq.read_table(parts(shards)[1])
    pq.write_table(table.set_column(1, "caption", table["caption"].dictionary_encode()), parts(shards)[1])
    assert read_index(str(shards), None).captions == {"ball-1": "", "box-0": "a red box", "box-2": "a box"}


def spoil(frame: Any) -> Callable[[list[dict[str, Any]]], Any]:
    """Puts something in the place of the last frame of the first row."""
    return lambda rows: [rows[0] | {"frames": [*rows[0]["frames"][:-1], frame]}, *rows[1:]]


@pytest.mark.parametrize("frame", [None, {"bytes": None, "path": ""}, {"bytes": b"no PNG", "path": ""}])
def test_a_frame_that_is_none_does_not_end_the_stream(shards: Path, frame: Any) -> None:
    rewrite(parts(shards)[0], spoil(frame), pq.read_schema(parts(shards)[0]))
    batches, notes = drawn(read_index(str(shards), None), Drawing(batch=1))
    assert {batch.frames.shape for batch in batches} == {(1, 16, 32, 32, 4)}
    assert list(notes) == [f"renders/{parts(shards)[0].name} row group 0 row 0"]


def test_turntables_that_are_not_what_the_table_says_do_not_end_the_stream(shards: Path, shards_writer: Any) -> None:
    """One of other frames than its `size`, and, where only the mean of the views is known, two of other numbers."""
    large = shards_writer(shards.parent / "large", {"box-0": "a red box"}, size=48)
    rewrite(parts(shards)[1], lambda rows: [rows[0] | {"frames": pq.read_table(parts(large)[0])["frames"][0].as_py()}])
    mixed = pq.read_table(parts(shards)[2]).to_pylist()
    short, long = mixed[0]["frames"][:8], [*mixed[1]["frames"], *mixed[1]["frames"][:8]]
    rewrite(parts(shards)[2], lambda rows: without_paths([rows[0] | {"frames": short}, rows[1] | {"frames": long}]))
    index = read_index(str(shards), None)
    assert (len(index), index.views) == (5, 16)
    batches, notes = drawn(index, Drawing(batch=1))
    assert {batch.frames.shape for batch in batches} == {(1, 16, 32, 32, 4)}
    assert sorted(reason.partition(": ")[2] for reason in notes.values()) == [
        "24 views, others have 16", "8 views, others have 16", "frames of 48 pixels, others have 32",
    ]  # fmt: skip


@pytest.mark.parametrize("broken", [None, b"", bytes(100)])
def test_latents_of_another_length_do_not_end_the_stream(tmp_path: Path, broken: bytes | None) -> None:
    whole = bytes(2 * 16 * 8 * 2 * 2)
    common = {"asset_id": "a", "caption": "a box", "split": "train", "size": 32, "elevation": 0.2}
    table = pa.Table.from_pylist([common | {"latents": latents} for latents in (whole, broken)])
    (tmp_path / "renders").mkdir()
    described = table.replace_schema_metadata({ENCODER: b"abc", SHAPE: b"[16, 8, 2, 2]"})
    pq.write_table(described, tmp_path / "renders" / "part-a.parquet")
    batches, notes = drawn(read_index(str(tmp_path), None), Drawing(batch=1))
    assert {batch.frames.shape for batch in batches} == {(1, 16, 8, 2, 2)}
    assert list(notes) == ["renders/part-a.parquet row group 0 row 1"]


def test_the_folder_of_the_shards_may_be_given_and_have_their_name(tmp_path: Path, shards_writer) -> None:
    plain, named = (shards_writer(tmp_path / name, {"box-0": "a box"}) for name in ("made", "renders"))
    for given, root in [(plain, plain), (plain / "renders", plain), (named, named), (named / "renders", named)]:
        assert read_index(f"{given}/", None).url == str(root)
